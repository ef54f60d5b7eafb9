-- Accuracy of each cell that the sweep asks for, over the tables of scores.sql: one row per variant, attack, knowledge
-- (as asked) and answer. Seeds are averaged within each example first, so that n counts examples; their spread stands
-- apart, in seed_sd. Examples of unfinished units are absent: see missing.
-- squared_error is the squared standard error of accuracy over the examples, and paths_error the part of it that their
-- paths explain. Where batches share paths (shared), shared_error is the squared standard error that these cause, with
-- shared_df degrees of freedom, and batches the sums of scores. Null: not known, as from one draw.
WITH trained AS (
    SELECT variant, axes, bool_or(state = 'diverged') AS diverged
    FROM plans JOIN trials USING (unit_id)
    WHERE sweep = getvariable('sweep') AND kind = 'train'
    GROUP BY ALL
), halted AS (  -- networks that the sweep trains no further: what is left out for that is not missing
    SELECT list(unit_id) AS networks FROM stops
    WHERE sweep = getvariable('sweep') AND unit_id NOT IN (SELECT unit_id FROM trials)
), cells AS (
    SELECT cell, asked.variant, asked.attack, asked.knowledge, nth,
        min(position) AS position,
        count(DISTINCT axes) FILTER (evaluations.unit_id IS NOT NULL) AS seeds,
        -- A diverged network may well have no answers: that is its result, nothing is missing.
        count(DISTINCT asked.unit_id) FILTER (
            evaluations.unit_id IS NULL AND diverged IS NOT TRUE AND list_has_any(needs, networks) IS NOT TRUE
        ) AS missing,
        count(DISTINCT axes) FILTER (list_has_any(needs, networks)) AS stopped_early,
        count(DISTINCT axes) FILTER (diverged) AS diverged,
        max(draws) AS draws, any_value(eps_255) AS eps_255,
        any_value(TRY_CAST(regexp_extract(attack_settings, '"step_255": ?([0-9.eE+-]+)', 1) AS DOUBLE)) AS step_255, any_value(eps_space) AS eps_space,
        any_value(threat) AS threat, any_value(attack_mode) AS attack_mode, any_value(data) AS data, any_value(classes) AS classes, any_value(checkpoint) AS checkpoint,
        bool_or(path_sharing <> 'example') AS shared_paths, bool_or(path_sharing = 'attack') AS regrouped,
        max(batch) FILTER (coalesce(batch_statistics, eval_mode <> 'eval')) AS batch_statistics,
        list(DISTINCT evaluations.unit_id ORDER BY evaluations.unit_id) FILTER (evaluations.unit_id IS NOT NULL) AS units
    FROM asked LEFT JOIN evaluations USING (unit_id) LEFT JOIN trained USING (variant, axes) CROSS JOIN halted
    GROUP BY ALL
), by_cell AS (
    -- Rounded, because threads add up in any order: else 0.3505 is 35.0 one time and 35.1 the next.
    SELECT cell, answer, count(*) AS n, round(avg(natural_score), 12) AS natural_accuracy, round(avg(score), 12) AS accuracy,
        var_samp(score) / count(*) AS squared_error, avg(path_variance) / count(*) AS paths_error
    FROM by_example GROUP BY cell, answer
), drawn_afresh AS (
    SELECT cell, natural_accuracy AS learned FROM by_cell WHERE answer = 'expected'
), hang AS (
    SELECT cell, bool_or(shared) AS shared, NOT bool_and(one_path) AS random FROM units GROUP BY cell
), seed_spread AS (
    SELECT cell, answer, round(stddev_samp(score), 12) AS seed_sd FROM by_seed GROUP BY cell, answer
), batches AS (
    SELECT cell, answer, list({'total': total, 'size': size}) AS batches
    FROM (
        SELECT cell, answer, sum(score) AS total, count(*) AS size
        FROM by_example JOIN blocks USING (cell, example) GROUP BY cell, answer, block
    ) GROUP BY ALL
)
SELECT variant, attack, knowledge, nth, answer, cells.cell AS number, position,
    CASE WHEN diverged > 0 THEN 'diverged' WHEN missing > 0 THEN 'missing'
        WHEN seeds = 0 AND stopped_early > 0 THEN 'stopped early' ELSE 'finished' END AS state,
    missing, seeds, diverged, stopped_early, coalesce(n, 0) AS n, draws, natural_accuracy, accuracy, squared_error,
    CASE WHEN NOT random THEN 0 WHEN NOT isnan(paths_error) THEN paths_error END::DOUBLE AS paths_error,
    coalesce(shared, false) AS shared, coalesce(random, false) AS random, shared_error / n ** 2 AS shared_error, shared_df, batches, seed_sd,
    median_l2, median_linf,
    eps_255, step_255, eps_space, threat, data, checkpoint, shared_paths, regrouped, batch_statistics, attack_mode, learned, classes, units
FROM cells CROSS JOIN (SELECT unnest(getvariable('answers')) AS answer)
    LEFT JOIN by_cell USING (cell, answer)
    LEFT JOIN seed_spread USING (cell, answer)
    LEFT JOIN drawn_afresh USING (cell)
    LEFT JOIN hang USING (cell)
    LEFT JOIN distances USING (cell)
    LEFT JOIN batches USING (cell, answer)
    LEFT JOIN shared_paths ON shared_paths.cell = cells.cell AND answer = 'expected'
ORDER BY position, list_position(getvariable('answers'), answer)
