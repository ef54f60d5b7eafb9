-- A batch's statistics beside the tracked ones, for each network and entry (label) of a sweep ($sweep): panel `channel` has
-- the mean over the batches for each channel of each seed's network, panel `network` the mean absolute difference over all
-- channels. A difference counts what inference divides by: the tracked deviation (with the norms' eps, 1e-5), else the
-- tracked range; of variances it is that of the deviations. It is null where neither is tracked.
WITH asked AS (
    SELECT unit_id, attack AS label, variant, axes, min(position) AS position
    FROM plans WHERE sweep = $sweep AND kind = 'probe' GROUP BY ALL
), held AS (
    SELECT label, training, variant, norm, networks.seed, axes, min(position) AS position, member, layer, x AS channel,
        y AS batch_from,
        max(value) FILTER (measure = 'batch_mean') AS batch_mean,
        max(value) FILTER (measure = 'tracked_mean') AS tracked_mean,
        max(value) FILTER (measure = 'batch_variance') AS batch_variance,
        max(value) FILTER (measure = 'tracked_variance') AS tracked_variance,
        max(value) FILTER (measure = 'batch_range') AS batch_range,
        max(value) FILTER (measure = 'tracked_range') AS tracked_range,
        coalesce(sqrt(tracked_variance + 1e-5), tracked_range) AS unit
    FROM asked JOIN measures USING (unit_id) JOIN networks ON networks.id = measures.network_id
    WHERE probe = 'statistics'
    GROUP BY label, training, variant, norm, networks.seed, axes, member, layer, x, y
), compared AS (
    SELECT 'mean' AS quantity, *, batch_mean AS batch, tracked_mean AS tracked,
        abs(batch_mean - tracked_mean) / unit AS difference FROM held
    UNION ALL
    SELECT 'variance', *, batch_variance, tracked_variance, abs(sqrt(batch_variance + 1e-5) - unit) / unit FROM held
    UNION ALL
    SELECT 'range', *, batch_range, tracked_range, abs(batch_range - tracked_range) / unit FROM held
), by_batch AS (  -- seeds averaged within each batch, of the same images
    SELECT quantity, label, training, variant, norm, member, batch_from, min(position) AS position,
        avg(difference) AS difference, count(DISTINCT axes) AS seeds
    FROM compared WHERE tracked IS NOT NULL AND batch IS NOT NULL GROUP BY ALL
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
    FROM compared WHERE tracked IS NOT NULL AND batch IS NOT NULL
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
