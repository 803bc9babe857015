"""MLflow. MLFLOW_TRACKING_URI says where it writes, else the folder mlruns of the run;
MLFLOW_EXPERIMENT_NAME names the experiment.
"""

import os
import re
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from ..extras import require
from .identity import identity, keep

BATCH = 1000  # metrics that one request may hold


class MLflow:
    """A run of MLflow that goes on where the run in the logdir does; every step is in frames.
    Pictures and texts are its artifacts.
    """

    def __init__(self, logdir: Path, on_event: Callable[[str], None]):
        require('mlflow', 'mlflow')
        where = os.environ.get('MLFLOW_TRACKING_URI')
        if not where:
            where = (logdir.resolve() / 'mlruns').as_uri()
            os.environ.setdefault('MLFLOW_ALLOW_FILE_STORE', 'true')
        import mlflow
        from mlflow.entities import Metric

        self._metric, self._client = Metric, mlflow.MlflowClient(where)
        self._run_id = identity(logdir, 'mlflow', make=False)
        if self._run_id is None:
            name = os.environ.get('MLFLOW_EXPERIMENT_NAME', 'dreamer4')
            known = self._client.get_experiment_by_name(name)
            experiment = known.experiment_id if known else self._client.create_experiment(name)
            run = self._client.create_run(experiment, run_name=logdir.name)
            self._run_id = run.info.run_id
            keep(logdir, 'mlflow', self._run_id)
        else:
            self._client.update_run(self._run_id, status='RUNNING')

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        now = int(time.time() * 1000)
        metrics = [
            self._metric(plain(name), float(value), now, step) for name, value in values.items()
        ]
        for start in range(0, len(metrics), BATCH):
            self._client.log_batch(self._run_id, metrics=metrics[start : start + BATCH])

    def image(self, name: str, content: bytes, shape: tuple[int, ...], step: int) -> None:
        kind = 'gif' if content.startswith(b'GIF') else 'png'
        self._artifact(plain(name), f'{step:012d}.{kind}', content)

    def text(self, name: str, text: str, step: int) -> None:
        self._artifact('text', f'{plain(name)}.md', text.encode())

    def resume(self, step: int) -> None:
        """MLflow keeps what lies beyond `step`: both versions are shown."""

    def close(self) -> None:
        if self._run_id is not None:
            self._client.set_terminated(self._run_id)
            self._run_id = None

    def _artifact(self, folder: str, name: str, content: bytes) -> None:
        with tempfile.TemporaryDirectory() as place:
            path = Path(place) / name
            path.write_bytes(content)
            self._client.log_artifact(self._run_id, str(path), folder)


def plain(name: str) -> str:
    """A name with '_' in place of what MLflow does not take."""
    return re.sub(r'[^\w\-./ ]', '_', name)
