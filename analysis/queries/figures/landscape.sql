-- Mean loss and accuracy at each point of a plane of weights, for each network and entry (label) of a sweep ($sweep). Each
-- seed's network has a plane of its own; seeds are averaged within each example first, so that n counts examples. Where an
-- image's loss is no finite number, the mean is null.
WITH asked AS (
    SELECT unit_id, attack AS label, variant, axes, min(position) AS position
    FROM plans WHERE sweep = $sweep AND kind = 'probe' GROUP BY ALL
), by_example AS (
    SELECT label, training, variant, norm, example, x, y,
        avg(value) FILTER (measure = 'loss') AS loss, avg(value) FILTER (measure = 'correct') AS accuracy,
        count(DISTINCT axes) AS seeds, min(position) AS position
    FROM measures JOIN asked USING (unit_id) JOIN networks ON networks.id = measures.network_id
    WHERE probe = 'landscape'
    GROUP BY ALL
), summed AS (
    SELECT label, training, variant, norm, x, y, min(position) AS position,
        round(avg(loss) FILTER (isfinite(loss)), 9) AS mean,
        round(stddev_samp(loss) FILTER (isfinite(loss)) / sqrt(count(*)), 9) AS standard_error,
        round(avg(accuracy), 12) AS accuracy, count(*) FILTER (isfinite(loss)) AS finite, count(*) AS n, max(seeds) AS seeds
    FROM by_example
    GROUP BY label, training, variant, norm, x, y
)
SELECT label, training, variant, norm, x, y,
    CASE WHEN finite = n THEN mean END AS loss, CASE WHEN finite = n THEN standard_error END AS standard_error,
    accuracy, n, seeds
FROM summed
ORDER BY label DESC, training = 'adversarial', training, position, variant, y, x
