-- Accuracy of each network of a sweep ($sweep) on the adversarial examples of each network that was paired with it,
-- itself included: those that were trained alike first. Seeds are averaged within each example first, so that n counts examples.
WITH asked AS (
    SELECT unit_id, source, variant AS target, axes, min(position) AS position
    FROM plans WHERE sweep = $sweep AND kind = 'probe' GROUP BY ALL
), by_example AS (
    SELECT a.training AS source_training, b.training, source, target, a.norm AS source_norm, b.norm AS target_norm, example,
        avg((prediction = label)::INT) AS score, avg((natural_prediction = label)::INT) AS natural_score, count(DISTINCT axes) AS seeds, min(position) AS position
    FROM transfers JOIN asked USING (unit_id)
        JOIN (SELECT unit_id FROM probes WHERE probe = 'transfer') USING (unit_id)
        JOIN networks AS a ON a.id = transfers.source_id
        JOIN networks AS b ON b.id = transfers.network_id
    GROUP BY ALL
)
SELECT source_training, training, source, target, source_norm, target_norm,
    round(avg(score), 12) AS accuracy, round(avg(natural_score), 12) AS natural_accuracy, count(*) AS n, max(seeds) AS seeds
FROM by_example
GROUP BY source_training, training, source, target, source_norm, target_norm
ORDER BY source_training <> training, training = 'adversarial', training, source_training, min(position), target, source
