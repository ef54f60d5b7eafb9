"""The section of a sweep file that says where the metrics of its trainings go, beside the store; none of it counts."""

from __future__ import annotations

from pydantic import field_validator

from rna_ray.sweep.section import Section, absolute, uncounted


class Mlflow(Section):
    """An MLflow server that gets a run for each training; `pip install 'rna-ray[mlflow]'`."""

    tracking_uri: str | None = uncounted(None)
    """Where it is, such as http://host:5000 or sqlite:///mlflow.db; null is what MLflow itself takes, which is
    MLFLOW_TRACKING_URI where that is set."""
    experiment: str | None = uncounted(None)
    """The experiment that the runs belong to; null is the sweep's name."""


class Wandb(Section):
    """Weights & Biases, which gets a run for each training; `pip install 'rna-ray[wandb]'`."""

    project: str | None = uncounted(None)
    """The project that the runs belong to, in a group of the sweep's name; null is the sweep's name."""


class Logging(Section):
    """Where each training's metrics go, epoch by epoch, to be looked at; the store has them in any case."""

    tensorboard: bool = uncounted(True)
    """Whether the driver writes them as files for TensorBoard."""
    folder: str | None = uncounted(None)
    """Where on the driver's machine these files lie, below a folder of the sweep's name; null is the folder
    `tensorboard` of a store that is a folder itself, and of the current folder for any other store."""
    mlflow: Mlflow | None = uncounted(None)
    """The MLflow server that gets them too; {} takes all of its defaults, null is none."""
    wandb: Wandb | None = uncounted(None)
    """The Weights & Biases project that gets them too; {} takes all of its defaults, null is none."""

    @field_validator("folder")
    @classmethod
    def _absolute(cls, folder: str | None) -> str | None:
        """A sweep that is resumed from elsewhere goes on writing there."""
        return None if folder is None else absolute(folder)
