-- Accuracy of each network of a sweep ($sweep) on the adversarial examples of each network that was trained alike,
-- itself included. Seeds are averaged within each example first, so that n counts examples.
WITH asked AS (
    SELECT unit_id, source, variant AS target, axes, min(position) AS position
    FROM plans WHERE sweep = $sweep AND kind = 'probe' GROUP BY ALL
), by_example AS (
    SELECT b.training, source, target, a.norm AS source_norm, b.norm AS target_norm, example,
        avg((prediction = label)::INT) AS score, avg((natural_prediction = label)::INT) AS natural_score, count(DISTINCT axes) AS seeds, min(position) AS position
    FROM transfers JOIN asked USING (unit_id)
        JOIN (SELECT unit_id FROM probes WHERE probe = 'transfer') USING (unit_id)
        JOIN networks AS a ON a.id = transfers.source_id
        JOIN networks AS b ON b.id = transfers.network_id
    WHERE a.training = b.training
    GROUP BY ALL
)
SELECT training, source, target, source_norm, target_norm,
    round(avg(score), 12) AS accuracy, round(avg(natural_score), 12) AS natural_accuracy, count(*) AS n, max(seeds) AS seeds
FROM by_example
GROUP BY training, source, target, source_norm, target_norm
ORDER BY training = 'adversarial', training, min(position), target, source
