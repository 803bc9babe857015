"""The block `report` of the configuration."""

from dataclasses import dataclass

from embodied.errors import ConfigError


@dataclass(frozen=True)
class ReportConfig:
    """How much a report measures.

    Attributes:
        batches: that numbers are means of. thorough: the error of every signal level and of every
            number of denoising steps, on all batches; otherwise of a few of them, on one batch.
    """

    batches: int
    thorough: bool

    def __post_init__(self):
        if self.batches < 1:
            raise ConfigError(f'report.batches must be at least 1, got {self.batches}.')
