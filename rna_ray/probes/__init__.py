"""Measurements on trained networks that are no scores: one record in `catalog` and one file for each probe.

A probe named `path-transfer` is a function `measure` in `path_transfer.py`, listed in `probe.MEASURES`:

    measure(settings: Mapping, subjects: Sequence[Subject], batch: Batch) -> Rows

It measures one batch. `settings` are the unit's: `attack` (for `attacks.make`, where the record says that there is one)
and `options`. `subjects` are the unit's networks: of a pair the source first, then the network that answers. A subject
makes the defences through which everything runs: `drawn` on its own draws, `along` on a given path (`paths.following`
for a probe that looks inside). `Rows` are rows of the views `measures` and `transfers`, their columns as in
`store.records`, without those that all rows of a unit share; `batch.rows` turns a value an example into rows and drops
the padding. `probe.probe` puts the networks into eval mode and cuts the batches, so that results do not depend on how
the examples were cut into units: every random number comes from `subject.random`, keyed by what the shards share, by
the example and by numbers that the probe gives, never by the unit's id.
"""
