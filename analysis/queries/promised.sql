-- The images of some sets of units (variables: sets, units) that were certified too, each network's by itself: the score
-- under attack, how far the image was moved (l2), and of the n draws that bound, those that gave the label. A certificate
-- is of the same weights, noise and precision; of several the one with the most draws.
WITH sets AS (
    SELECT unnest($sets) AS set, unnest($units) AS unit_id
), attacked AS (
    SELECT set, network_id, example, weights_sha256, data, noise_255, precision,
        sum(adversarial_correct) / sum(draws) AS attacked, max(l2) AS distance
    FROM examples JOIN sets USING (unit_id)
        JOIN (SELECT unit_id, weights_sha256, data, noise_255, precision FROM evaluations) USING (unit_id)
    WHERE network_id IN (SELECT network_id FROM certifications)
    GROUP BY ALL
), certified AS (
    SELECT unit_id, network_id, example, weights_sha256, data, noise_255, precision, sigma,
        counts[label + 1] AS count, list_sum(counts) AS n
    FROM certificates
        JOIN (SELECT unit_id, weights_sha256, data, noise_255, precision FROM certifications) USING (unit_id)
    WHERE NOT abandoned
)
SELECT set, example, attacked, distance, sigma, count, n
FROM attacked JOIN certified USING (network_id, example, weights_sha256, data, noise_255, precision)
QUALIFY row_number() OVER (PARTITION BY set, network_id, example ORDER BY n DESC, unit_id) = 1
ORDER BY set, example, network_id
