-- Expected accuracy of each cell that sweep $sweep asks for: one row per variant, attack and knowledge (as asked).
-- Seeds are averaged within each example first, so that n counts examples; their spread stands apart, in seed_sd.
-- nth tells apart cells of one variant that were asked for under the same two labels (another ε, say).
-- Natural rows score the clean image. Examples of unfinished units are absent: see missing.
WITH asked AS (
    SELECT variant, axes, attack, knowledge, unit_id, position,
        dense_rank() OVER (PARTITION BY variant, axes, attack, knowledge ORDER BY position) AS nth
    FROM plans
    WHERE sweep = $sweep AND kind = 'evaluate'
), trained AS (
    SELECT variant, axes, bool_or(state = 'diverged') AS diverged
    FROM plans JOIN trials USING (unit_id)
    WHERE sweep = $sweep AND kind = 'train'
    GROUP BY ALL
), cells AS (
    SELECT asked.variant, asked.attack, asked.knowledge, nth,
        min(position) AS position,
        count(DISTINCT axes) FILTER (evaluations.unit_id IS NOT NULL) AS seeds,
        -- A diverged network may well have no answers: that is its result, nothing is missing.
        count(DISTINCT asked.unit_id) FILTER (evaluations.unit_id IS NULL AND diverged IS NOT TRUE) AS missing,
        count(DISTINCT axes) FILTER (diverged) AS diverged,
        max(draws) AS draws, any_value(eps_255) AS eps_255, any_value(eps_space) AS eps_space,
        any_value(threat) AS threat, any_value(data) AS data, any_value(checkpoint) AS checkpoint,
        bool_or(path_sharing <> 'example') AS shared_paths, bool_or(path_sharing = 'attack') AS regrouped,
        bool_or(evaluations.attack <> 'natural' AND eps_255 IS NULL) AS unbounded
    FROM asked LEFT JOIN evaluations USING (unit_id) LEFT JOIN trained USING (variant, axes)
    GROUP BY ALL
), scores AS (
    SELECT variant, axes, asked.attack, asked.knowledge, nth, example, l2,
        natural_correct / draws AS natural_accuracy,
        CASE WHEN examples.attack = 'natural' THEN natural_correct ELSE adversarial_correct END / draws AS score
    FROM asked JOIN examples USING (unit_id)
), by_example AS (
    SELECT variant, attack, knowledge, nth, avg(natural_accuracy) AS natural_accuracy, avg(score) AS score
    FROM scores GROUP BY variant, attack, knowledge, nth, example
), by_cell AS (
    SELECT variant, attack, knowledge, nth, count(*) AS n, avg(natural_accuracy) AS natural_accuracy, avg(score) AS accuracy
    FROM by_example GROUP BY ALL
), by_seed AS (
    SELECT variant, axes, attack, knowledge, nth, avg(score) AS accuracy
    FROM scores GROUP BY ALL
), seed_spread AS (
    SELECT variant, attack, knowledge, nth, stddev_samp(accuracy) AS seed_sd
    FROM by_seed GROUP BY ALL
), distortion AS (
    SELECT variant, attack, knowledge, nth, median(l2) AS median_l2
    FROM scores GROUP BY ALL
)
SELECT variant, attack, knowledge, nth, position,
    CASE WHEN diverged > 0 THEN 'diverged' WHEN missing > 0 THEN 'missing' ELSE 'finished' END AS state,
    missing, seeds, diverged, coalesce(n, 0) AS n, draws, natural_accuracy, accuracy, seed_sd,
    CASE WHEN unbounded THEN median_l2 END AS median_l2,
    eps_255, eps_space, threat, data, checkpoint, shared_paths, regrouped
FROM cells
    LEFT JOIN by_cell USING (variant, attack, knowledge, nth)
    LEFT JOIN seed_spread USING (variant, attack, knowledge, nth)
    LEFT JOIN distortion USING (variant, attack, knowledge, nth)
ORDER BY position
