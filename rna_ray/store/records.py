"""The rows of every view: Arrow schemas, one sentence a column, and the version of it all.

This is the contract between what runs and `analysis/`. A new view, or a new optional column (null in the files before
it), keeps SCHEMA_VERSION; anything else bumps it, and older releases refuse the store.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import pyarrow as pa

SCHEMA_VERSION = 1

Column: TypeAlias = pa.Field
_TEXT, _BOOL = pa.string(), pa.bool_()
_PREDICTIONS = pa.list_(pa.int16())
_COUNTS = pa.list_(pa.int32())
_INSTANT = pa.timestamp("us", tz="UTC")


def _column(name: str, kind: pa.DataType, description: str, *, optional: bool = False) -> Column:
    return pa.field(name, kind, nullable=optional, metadata={"description": description})


UNIT = _column("unit_id", _TEXT, "Content id of the unit that wrote the row.")
NETWORK = _column("network_id", _TEXT, "Content id of the unit (train, import) whose network this is.")
EVALUATION = _column("evaluation", _TEXT, "Digest of all settings but the examples, shared by shards.")
WEIGHTS = _column("weights_sha256", _TEXT, "SHA-256 of the weights that answered.", optional=True)
SOURCE_WEIGHTS = _column("source_sha256", _TEXT, "The same of the network that was attacked, where it is another.",
                         optional=True)
EXAMPLE = _column("example", pa.int32(), "Index of the example in its split.")
LABEL = _column("label", pa.int16(), "True class.")
SETTINGS = _column("settings", _TEXT, "All that decides the result, as canonical JSON.")

PROVENANCE = (
    _column("commit", _TEXT, "Git commit of the code, where there is one.", optional=True),
    _column("dirty", _BOOL, "Whether the working tree differed from that commit.", optional=True),
    _column("rna_ray", _TEXT, "Version of rna-ray."),
    _column("python", _TEXT, "Version of Python."),
    _column("torch", _TEXT, "Version of torch."),
    _column("ray", _TEXT, "Version of Ray, where it is installed.", optional=True),
    _column("device", _TEXT, "Device that computed, such as cpu or the name of the GPU."),
    _column("threads", pa.int32(), "Threads that torch used within one operation."),
    _column("devices", pa.float64(), "How many cores it took, or GPUs, a part of one where units share it.",
            optional=True),
    _column("precision", _TEXT, "fp32 or bf16; fp64 for second derivatives of a probe."),
    _column("compiled", _BOOL, "Whether torch.compile was in use."),
    _column("kernel", _TEXT, "`native` where the images of a batch take one path through torch's norms, "
            "`mixture` where each takes its own."),
    _column("seconds", pa.float64(), "Wall seconds of the unit."),
    _column("peak_memory", pa.int64(), "Most bytes that its process held: resident, or allocated on the GPU.",
            optional=True),
    _column("attempt", pa.int32(), "Number of this attempt at the unit, from 1."),
    _column("host", _TEXT, "Machine that ran it."),
    _column("started_at", _INSTANT, "When this attempt started."),
)

_BATCH_ASKED = _column("batch_asked", pa.int32(), "The batch that the sweep asked for, where memory allowed less.",
                       optional=True)

_TRIALS = (
    UNIT,
    _column("state", _TEXT, "finished, diverged, or imported: all are results."),
    _column("network", _TEXT, "Architecture, or the module:function of a network of the user's own."),
    _column("width", pa.int32(), "Channels of the first stage; 0 for a network of the user's own."),
    _column("norm", _TEXT, "Norm space, canonical; own for a network of the user's own."),
    _column("layer_based", _BOOL, "One draw for the whole network instead of one per layer."),
    _column("paths_drawn", _TEXT, "One path for each example, or for each batch."),
    _column("log2_paths", pa.float64(), "log2 of the number of distinct paths."),
    _column("parameters", pa.int64(), "Trainable parameters."),
    _column("data", _TEXT, "Data set."),
    _column("data_digest", _TEXT, "Digest of its decoded images and labels."),
    _column("train_examples", pa.int32(), "Examples trained on."),
    _column("held_out", pa.int32(), "Training examples kept back to choose the best checkpoint."),
    _column("objective", _TEXT, "natural, whitebox, blackbox, or imported: not trained here."),
    _column("epochs", pa.int32(), "Epochs done."),
    _column("attack", _TEXT, "Resolved attack of adversarial training, as JSON.", optional=True),
    _column("attack_mode", _TEXT, "Mode of the network during the inner attack.", optional=True),
    _column("seed", pa.int64(), "Seed of the unit."),
    _column("last_natural_correct", pa.int32(), "Held-out examples right after the last epoch.", optional=True),
    _column("last_adversarial_correct", pa.int32(), "The same under the training attack.", optional=True),
    _column("best_epoch", pa.int32(), "Epoch of the best checkpoint, from 1.", optional=True),
    _column("best_natural_correct", pa.int32(), "Held-out examples right at the best epoch.", optional=True),
    _column("best_adversarial_correct", pa.int32(), "The same under the training attack.", optional=True),
    _column("last_sha256", _TEXT, "SHA-256 of the last checkpoint's file.", optional=True),
    _column("best_sha256", _TEXT, "SHA-256 of the best checkpoint's file.", optional=True),
    _column("batch", pa.int32(), "Images in an update, where memory allowed fewer than the sweep asked for.",
            optional=True),
    _BATCH_ASKED,
    _column("earlier_code", _TEXT, "Other versions and commits that trained it before it was resumed, as JSON.",
            optional=True),
    SETTINGS,
    *PROVENANCE,
)

_EPOCHS = (
    UNIT,
    _column("epoch", pa.int32(), "Epoch, from 1."),
    _column("loss", pa.float64(), "Mean training loss."),
    _column("train_correct", pa.int32(), "Training images right, attacked as trained on, in the passes of that loss.",
            optional=True),
    _column("train_examples", pa.int32(), "Training images in the updates of the epoch.", optional=True),
    _column("natural_correct", pa.int32(), "Held-out examples right without an attack.", optional=True),
    _column("adversarial_correct", pa.int32(), "Held-out examples right under the training attack.", optional=True),
    _column("natural_loss", pa.float64(), "Mean cross-entropy of the held-out examples without an attack.",
            optional=True),
    _column("adversarial_loss", pa.float64(), "The same under the training attack.", optional=True),
    _column("held_out", pa.int32(), "Held-out examples."),
    _column("lr", pa.float64(), "Learning rate at the last step of the epoch."),
    _column("images_per_second", pa.float64(), "Training images per second."),
    _column("seconds", pa.float64(), "Wall seconds of the epoch."),
)

_EVALUATIONS = (
    UNIT,
    EVALUATION,
    NETWORK,
    _column("source_id", _TEXT, "Content id of the network that was attacked in the stead of this one.", optional=True),
    _column("checkpoint", _TEXT, "last or best."),
    _column("data", _TEXT, "Data set."),
    _column("attack", _TEXT, "Attack, natural for none."),
    _column("attack_settings", _TEXT, "Resolved attack, as JSON."),
    _column("eps_255", pa.float64(), "Radius of the ball in 1/255, null where unbounded.", optional=True),
    _column("eps_space", _TEXT, "pixel, or normalized: where radius, steps and deviations of the attack are measured."),
    _column("threat", _TEXT, "linf, l2, or none where the perturbation is unbounded or absent."),
    _column("steps", pa.int32(), "Steps of the attack.", optional=True),
    _column("restarts", pa.int32(), "Starts of the attack, the worst of which counts.", optional=True),
    _column("knowledge", _TEXT, "What the attacker knew of the randomness."),
    _column("knowledge_k", pa.int32(), "Draws per step of an expectation, or paths enumerated.", optional=True),
    _column("noise_255", pa.float64(), "Deviation of the defender's Gaussian noise in 1/255.", optional=True),
    _column("draws", pa.int32(), "Fresh draws m that answered for each example."),
    _column("eval_mode", _TEXT, "Mode of the network while it answered."),
    _column("attack_mode", _TEXT, "Its mode while the attack was crafted; null for the same.", optional=True),
    _column("start", pa.int32(), "First example of the shard."),
    _column("stop", pa.int32(), "One past the last example of the shard."),
    _column("batch", pa.int32(), "Examples in a batch, the last one padded."),
    _BATCH_ASKED,
    _column("classes", pa.int32(), "Classes of the data set: chance is one over them.", optional=True),
    _column("random_output", _BOOL, "Whether two draws gave one image different logits.", optional=True),
    _column("softmax_output", _BOOL, "Whether the outputs look like probabilities, not logits.", optional=True),
    _column("optimizes", _BOOL, "Whether the network took gradients while it answered.", optional=True),
    _column("global_generator", _BOOL, "Whether answering drew from a global generator.", optional=True),
    _column("repeats", _BOOL, "Whether the same draw gave the same logits twice.", optional=True),
    _column("flags", _TEXT, "What else there is to say of the attack, as JSON.", optional=True),
    _column("path_sharing", _TEXT, "example: a path each; batch: one a batch; attack: one a batch, for the attack."),
    _column("batch_statistics", _BOOL, "Whether answers took statistics of the batch: its images hang together.",
            optional=True),
    WEIGHTS,
    SOURCE_WEIGHTS,
    SETTINGS,
    *PROVENANCE,
)

_EXAMPLES = (
    UNIT,
    EVALUATION,
    NETWORK,
    EXAMPLE,
    LABEL,
    _column("attack", _TEXT, "Attack, natural for none."),
    _column("knowledge", _TEXT, "What the attacker knew of the randomness."),
    _column("draws", pa.int16(), "Fresh draws m."),
    _column("natural_predictions", _PREDICTIONS, "Class given to the clean image, one for each draw."),
    _column("adversarial_predictions", _PREDICTIONS, "Class given to the attacked image, one for each draw."),
    _column("natural_correct", pa.int16(), "Of the m draws, those right on the clean image."),
    _column("adversarial_correct", pa.int16(), "Of the m draws, those right on the attacked image."),
    _column("natural_margin", pa.float32(), "Mean over draws of the true logit minus the best other, clean."),
    _column("margin", pa.float32(), "Mean over draws of the true logit minus the best other, attacked."),
    _column("linf", pa.float32(), "Largest change of a pixel, in [0,1]."),
    _column("l2", pa.float32(), "Euclidean norm of the change, in [0,1] pixels."),
    _column("zero_gradients", pa.int16(), "Of the attack's gradients looked at, those exactly zero.", optional=True),
    _column("part", _TEXT, "Which part of an ensemble of attacks made the image.", optional=True),
)

_FAILURES = (
    UNIT,
    _column("kind", _TEXT, "Kind of the unit."),
    _column("attempt", pa.int32(), "Number of the attempt that failed, from 1."),
    _column("error", _TEXT, "Type of the error."),
    _column("message", _TEXT, "What it said."),
    _column("traceback", _TEXT, "Where it came from."),
    _column("host", _TEXT, "Machine it failed on."),
    _column("failed_at", _INSTANT, "When it failed."),  # not `at`: a reserved word of DuckDB's
)

_STOPS = (
    _column("sweep", _TEXT, "The sweep that trains it no further; another one may."),
    UNIT,
    _column("epoch", pa.int32(), "Epochs done, from whose checkpoint it can go on."),
    _column("compared_by", _TEXT, "What the points of the search were compared by: a column of epochs."),
    _column("value", pa.float64(), "What it was then."),
    _column("stopped_at", _INSTANT, "When it was stopped."),
)

_PLANS = (
    _column("sweep", _TEXT, "Name of the sweep."),
    UNIT,
    _column("kind", _TEXT, "Kind of the unit; one row for each unit of each cell, and for each network and seed."),
    _column("variant", _TEXT, "Label of the variant, without the seed."),
    _column("axes", _TEXT, "The variant's axes and the seed, as canonical JSON."),
    _column("attack", _TEXT, "Attack as asked for.", optional=True),
    _column("knowledge", _TEXT, "Knowledge as asked for, before it was simplified.", optional=True),
    _column("evaluation", _TEXT, "Digest of the evaluation.", optional=True),
    _column("position", pa.int32(), "Order of the cell in the plan.", optional=True),
    _column("source", _TEXT, "Label of the variant that was attacked, of a pair or in the stead of this one.",
            optional=True),
    _column("needs", pa.list_(_TEXT), "Content ids of the units whose networks this one takes.", optional=True),
    _column("spec", _TEXT, "The sweep as resolved, as JSON."),
)

_CERTIFICATIONS = (
    UNIT,
    EVALUATION,
    NETWORK,
    _column("checkpoint", _TEXT, "last or best."),
    _column("data", _TEXT, "Data set."),
    _column("classes", pa.int32(), "Classes of the data set."),
    _column("noise_255", pa.float64(), "Standard deviation of the noise in 1/255."),
    _column("draws", pa.int32(), "Draws n that bound the class's probability."),
    _column("selection", pa.int32(), "Separate draws that choose the class."),
    _column("abandon", _TEXT, "Which examples get no bounding draws: none, or misclassified."),
    _column("start", pa.int32(), "First example of the shard."),
    _column("stop", pa.int32(), "One past the last example of the shard."),
    _column("batch", pa.int32(), "Noisy images in a pass."),
    WEIGHTS,
    _BATCH_ASKED,
    SETTINGS,
    *PROVENANCE,
)

_CERTIFICATES = (
    UNIT,
    EVALUATION,
    NETWORK,
    EXAMPLE,
    LABEL,
    _column("sigma", pa.float64(), "Standard deviation of the noise, in [0,1] pixels."),
    _column("selection_counts", _COUNTS, "Of the draws that choose the class, those for each class."),
    _column("counts", _COUNTS, "Of the separate draws that bound it, those for each class; all 0 where abandoned."),
    _column("abandoned", _BOOL, "Whether it got no bounding draws and is an abstention."),
)

_PROBES = (
    UNIT,
    EVALUATION,
    _column("probe", _TEXT, "What was measured: a probe by its name, such as transfer or surface."),
    NETWORK,
    _column("source_id", _TEXT, "Content id of the other network of a pair: the one that was attacked.", optional=True),
    _column("checkpoint", _TEXT, "last or best."),
    _column("data", _TEXT, "Data set."),
    _column("classes", pa.int32(), "Classes of the data set."),
    _column("attack_settings", _TEXT, "Resolved attack, as JSON, where there is one.", optional=True),
    _column("eps_255", pa.float64(), "Radius of the ball in 1/255, where there is one.", optional=True),
    _column("eps_space", _TEXT, "pixel, or normalized: where it is measured; null is pixel.", optional=True),
    _column("threat", _TEXT, "linf or l2, where there is a ball.", optional=True),
    _column("start", pa.int32(), "First example of the shard."),
    _column("stop", pa.int32(), "One past the last example of the shard."),
    WEIGHTS,
    SOURCE_WEIGHTS,
    SETTINGS,
    *PROVENANCE,
)

_MEASURES = (
    UNIT,
    EVALUATION,
    NETWORK,
    _column("source_id", _TEXT, "Content id of the other network of a pair.", optional=True),
    _column("probe", _TEXT, "What was measured, as in probes."),
    _column("measure", _TEXT, "The quantity, such as cosine, loss, gradient_norm."),
    _column("example", pa.int32(), "Index of the example in its split; null where the value is not one example's.",
            optional=True),
    _column("member", _TEXT, "The norm along whose path it was measured, where there is one.", optional=True),
    _column("other", _TEXT, "The other norm of a pair.", optional=True),
    _column("layer", _TEXT, "The norm layer where it was measured, where there is one.", optional=True),
    _column("x", pa.float64(), "First coordinate, such as the distance along the attack in 1/255.", optional=True),
    _column("y", pa.float64(), "Second coordinate, such as the distance along the orthogonal in 1/255.", optional=True),
    _column("value", pa.float64(), "The value measured."),
)

_TRANSFERS = (
    UNIT,
    EVALUATION,
    _column("source_id", _TEXT, "Content id of the network that was attacked."),
    NETWORK,
    EXAMPLE,
    LABEL,
    _column("pair", pa.int16(), "Which pair of paths, from 0; null between networks.", optional=True),
    _column("path_difference", pa.int16(), "Layers where attack and answer took another norm.", optional=True),
    _column("natural_prediction", pa.int16(), "Class that the network gave to the clean image."),
    _column("source_prediction", pa.int16(), "Class that the attacked network or path gave to the adversarial image."),
    _column("prediction", pa.int16(), "Class that the network or path that answers gave to that image."),
)

SCHEMAS: Mapping[str, pa.Schema] = {
    name: pa.schema(columns)
    for name, columns in {
        "trials": _TRIALS,
        "epochs": _EPOCHS,
        "evaluations": _EVALUATIONS,
        "examples": _EXAMPLES,
        "certifications": _CERTIFICATIONS,
        "certificates": _CERTIFICATES,
        "probes": _PROBES,
        "measures": _MEASURES,
        "transfers": _TRANSFERS,
        "failures": _FAILURES,
        "stops": _STOPS,
        "plans": _PLANS,
    }.items()
}
Views = Mapping[str, pa.Table]
"""The rows of a unit, by view."""

_FILLED = {view: [at for at, one in enumerate(schema) if not one.nullable] for view, schema in SCHEMAS.items()}
"""View → the columns, by number, that hold no null."""

RECORDS: Mapping[str, str] = {
    "train": "trials",
    "import": "trials",
    "evaluate": "evaluations",
    "certify": "certifications",
    "probe": "probes",
}
"""Kind of unit → its record view, whose file is written last: that it exists means done."""

DETAILS: Mapping[str, str] = {
    "epochs": "trials", "examples": "evaluations", "measures": "probes", "transfers": "probes",
    "certificates": "certifications",
}
"""View → the record view without whose file its rows do not count."""


NEEDS: Mapping[str, tuple[str, ...]] = {
    "train": ("epochs",),
    "import": (),
    "evaluate": ("examples",),
    "probe": ("measures", "transfers"),
    "certify": ("certificates",),
}
"""Kind of unit → its detail views: a finished unit has rows in at least one of them, where there are any."""


def from_rows(view: str, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Return the rows as a table of the view; ValueError where a column is unknown, missing or null by mistake."""
    names = dict.fromkeys(name for row in rows for name in row) or SCHEMAS[view].names
    return conform(view, pa.table({name: _array(view, name, [row.get(name) for row in rows]) for name in names}))


def _array(view: str, name: str, values: Sequence[Any]) -> pa.Array:
    try:
        return pa.array(values)  # no type given: with one, 1.5 would silently become an int32's 1
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"column {name} of view {view} cannot hold what it was given: {error}") from error


def conform(view: str, table: pa.Table) -> pa.Table:
    """Return the table in the view's columns, order and types; ValueError where it is not of that view.

    Optional columns may be left out. Values that their type cannot hold are refused, never rounded or wrapped.
    """
    schema = SCHEMAS[view]
    if table.schema == schema and not any(table[at].null_count for at in _FILLED[view]):
        return table.replace_schema_metadata(None)
    if unexpected := sorted(set(table.column_names) - set(schema.names)):
        raise ValueError(f"view {view} has no column {', '.join(unexpected)}")
    return pa.table([_fitted(view, table, column) for column in schema], schema=schema)


def _fitted(view: str, table: pa.Table, column: Column) -> pa.Array | pa.ChunkedArray:
    at = table.schema.get_field_index(column.name)
    given = pa.nulls(table.num_rows) if at < 0 else table.column(at)
    if not column.nullable and given.null_count:
        raise ValueError(f"column {column.name} of view {view} may not be empty, here it is in {given.null_count} rows")
    if column.type == _TEXT and given.type not in (_TEXT, pa.large_string(), pa.null()):
        raise ValueError(f"column {column.name} of view {view} holds text, not {given.type}")
    try:
        return given if given.type == column.type else given.cast(column.type)
    except pa.ArrowException as error:
        raise ValueError(f"column {column.name} of view {view} cannot hold what it was given: {error}") from error
