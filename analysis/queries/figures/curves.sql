-- Loss and accuracy of each variant of a sweep ($sweep) over its epochs, the mean over its seeds with its standard error.
-- What an older release did not measure is null, and left out, as are losses that are not finite.
WITH asked AS (
    SELECT variant, unit_id, min(position) OVER (PARTITION BY variant) AS position, kind
    FROM plans WHERE sweep = $sweep
), trained AS (
    SELECT DISTINCT variant, position, unit_id, training, train_examples, state = 'diverged' AS diverged
    FROM asked JOIN trials USING (unit_id) JOIN networks ON id = unit_id
    WHERE kind = 'train'
), measured AS (
    SELECT variant, position, epoch, unnest([
        {quantity: 'loss', images: 'training', attack: training, value: loss,
         n: coalesce(epochs.train_examples, trained.train_examples)},
        {quantity: 'accuracy', images: 'training', attack: training, value: train_correct / epochs.train_examples,
         n: epochs.train_examples},
        {quantity: 'loss', images: 'held-out', attack: 'natural', value: natural_loss, n: held_out},
        {quantity: 'accuracy', images: 'held-out', attack: 'natural', value: natural_correct / nullif(held_out, 0),
         n: held_out},
        {quantity: 'loss', images: 'held-out', attack: 'adversarial', value: adversarial_loss, n: held_out},
        {quantity: 'accuracy', images: 'held-out', attack: 'adversarial',
         value: adversarial_correct / nullif(held_out, 0), n: held_out}
    ], recursive := true)
    FROM epochs JOIN trained USING (unit_id)
)
SELECT variant, quantity, images, attack, epoch, round(avg(value), 12) AS value,
    round(stddev_samp(value) / sqrt(count(*)), 12) AS standard_error, max(n) AS n, count(*) AS seeds,
    (SELECT count(*) FROM trained WHERE trained.variant = measured.variant AND diverged) AS diverged
FROM measured
WHERE isfinite(value)
GROUP BY variant, position, quantity, images, attack, epoch
ORDER BY position, variant, images DESC, attack DESC, quantity DESC, epoch
