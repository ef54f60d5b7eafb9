-- A batch's statistics beside the tracked ones, for each network and entry (label) of a sweep ($sweep): panel `channel` has
-- the mean over the batches for each channel of each seed's network, panel `network` the mean absolute difference over all
-- channels. A difference counts what inference divides by: the tracked deviation, or of RobustNorm the range to its power
-- (the test batch's, where it is not tracked); of variances it is that of the deviations.
WITH asked AS (
    SELECT unit_id, attack AS label, variant, axes, min(position) AS position
    FROM plans WHERE sweep = $sweep AND kind = 'probe' GROUP BY ALL
), held AS (
    SELECT label, training, variant, norm, networks.seed, axes, min(position) AS position, member, layer, x AS channel,
        y AS batch_from, split_part(measure, '_', 2) AS quantity,
        max(value) FILTER (starts_with(measure, 'batch_')) AS batch,
        max(value) FILTER (starts_with(measure, 'tracked_')) AS tracked
    FROM measures JOIN asked USING (unit_id) JOIN networks ON networks.id = measures.network_id
    WHERE probe = 'statistics'
    GROUP BY ALL
), divided AS (  -- both divisors have the norms' eps
    SELECT *, coalesce(
            sqrt(max(tracked) FILTER (quantity = 'variance') OVER here + 1e-5),
            max(coalesce(tracked, batch)) FILTER (quantity = 'range') OVER here + 1e-5
        ) AS unit
    FROM held WINDOW here AS (PARTITION BY label, variant, axes, member, layer, channel, batch_from)
), compared AS (
    SELECT *,
        CASE quantity WHEN 'variance' THEN abs(sqrt(batch + 1e-5) - unit) ELSE abs(batch - tracked) END / unit
            AS difference
    FROM divided WHERE batch IS NOT NULL AND tracked IS NOT NULL
), by_batch AS (  -- seeds averaged within each batch, of the same images
    SELECT quantity, label, training, variant, norm, member, batch_from, min(position) AS position,
        avg(difference) AS difference, count(DISTINCT axes) AS seeds
    FROM compared GROUP BY ALL
), images AS (
    SELECT label, variant, max(n) AS n FROM (
        SELECT label, variant, axes, sum(stop - start)::BIGINT AS n
        FROM asked JOIN probes USING (unit_id) WHERE probe = 'statistics' GROUP BY ALL
    ) GROUP BY ALL
), found AS (
    SELECT 'channel' AS panel, quantity, label, training, variant, norm, seed, member, layer, channel::INT AS channel,
        min(position) AS position, max(tracked) AS tracked, round(avg(batch), 12) AS batch,
        round(stddev_samp(batch) / sqrt(count(*)), 12) AS standard_error, round(avg(difference), 12) AS difference,
        count(*) AS batches, 1 AS seeds
    FROM compared
    GROUP BY quantity, label, training, variant, norm, axes, seed, member, layer, channel
    UNION ALL
    SELECT 'network', quantity, label, training, variant, norm, NULL, member, NULL, NULL,
        min(position), NULL, NULL,
        round(stddev_samp(difference) / sqrt(count(*)), 12), round(avg(difference), 12), count(*), max(seeds)
    FROM by_batch GROUP BY quantity, label, training, variant, norm, member
)
SELECT panel, quantity, label, training, variant, norm, seed, member, layer, channel, tracked, batch, standard_error,
    difference, batches, n, seeds
FROM found JOIN images USING (label, variant)
ORDER BY panel, label DESC, quantity, training = 'adversarial', training, position, variant, member, seed, layer, channel
