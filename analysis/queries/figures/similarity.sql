-- Cosine similarities of input gradients, for each unordered pair of networks of a sweep ($sweep) that were trained alike
-- and each pair of norms of one network. Seeds are averaged within each example first, so that n counts examples.
-- Gradients of which one is zero have no angle: NaN, and left out.
WITH asked AS (
    SELECT unit_id, source, variant, axes, min(position) AS position
    FROM plans WHERE sweep = $sweep AND kind = 'probe' GROUP BY ALL
), by_example AS (
    SELECT b.training, source, variant, a.norm AS source_norm, b.norm AS variant_norm, member, other, example,
        avg(value) AS cosine, count(DISTINCT axes) AS seeds, min(position) AS position
    FROM measures JOIN asked USING (unit_id)
        JOIN networks AS b ON b.id = measures.network_id
        LEFT JOIN networks AS a ON a.id = measures.source_id
    WHERE probe = 'similarity' AND measure = 'cosine' AND NOT isnan(value)
        AND (a.training IS NULL OR a.training = b.training)
    GROUP BY ALL
)
SELECT training, source, variant, source_norm, variant_norm, member, other,
    round(avg(cosine), 12) AS mean, round(stddev_samp(cosine) / sqrt(count(*)), 12) AS standard_error,
    count(*) AS n, max(seeds) AS seeds, list(round(cosine, 9) ORDER BY cosine) AS cosines
FROM by_example
GROUP BY training, source, variant, source_norm, variant_norm, member, other
ORDER BY source IS NULL, min(position), source, variant, member, other
