-- Mean loss at each point of the plane around an example, for each network of a sweep ($sweep). Seeds are averaged within
-- each example first, so that n counts examples.
WITH asked AS (
    SELECT unit_id, variant, axes, min(position) AS position
    FROM plans WHERE sweep = $sweep AND kind = 'probe' GROUP BY ALL
), by_example AS (
    SELECT training, variant, norm, example, x, y,
        avg(value) AS loss, count(DISTINCT axes) AS seeds, min(position) AS position
    FROM measures JOIN asked USING (unit_id) JOIN networks ON networks.id = measures.network_id
    WHERE probe = 'surface' AND measure = 'loss' AND NOT isnan(value) -- no plane where the gradient is zero
    GROUP BY ALL
)
SELECT training, variant, norm, x, y, round(avg(loss), 9) AS loss,
    round(stddev_samp(loss) / sqrt(count(*)), 9) AS standard_error, count(*) AS n, max(seeds) AS seeds
FROM by_example
GROUP BY training, variant, norm, x, y
ORDER BY training = 'adversarial', training, min(position), variant, y, x
