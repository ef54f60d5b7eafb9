-- What the table of a sweep and its comparisons are computed from, kept for the connection: asked (the cells of sweep
-- $sweep), scores (one row a cell, seed, answer and example), by_example (the same, averaged over seeds).
CREATE OR REPLACE TEMP MACRO tied(counts, correct) AS
    CASE WHEN correct < list_max(counts) THEN 0 ELSE 1 / len(list_filter(counts, lambda held: held = correct)) END;
-- Majority vote: a tie of k classes that includes the true one counts 1/k.
CREATE OR REPLACE TEMP MACRO voted(predictions, correct, draws) AS CASE
    WHEN 2 * correct > draws THEN 1
    WHEN correct = 0 THEN 0
    ELSE tied(map_values(list_aggregate(predictions, 'histogram')), correct) END;
CREATE OR REPLACE TEMP MACRO scored(answer, predictions, correct, draws) AS CASE answer
    WHEN 'vote' THEN voted(predictions, correct, draws)
    WHEN 'worst' THEN (correct = draws)::INT
    ELSE correct / draws END::DOUBLE;

-- nth tells apart cells of one variant that were asked for under the same two labels (another ε, say).
CREATE OR REPLACE TEMP TABLE asked AS
WITH named AS (
    SELECT variant, axes, attack, knowledge, source, unit_id, position, needs,
        dense_rank() OVER (PARTITION BY variant, axes, attack, knowledge ORDER BY position) AS nth
    FROM plans
    WHERE sweep = getvariable('sweep') AND kind = 'evaluate'
)
SELECT *, dense_rank() OVER (ORDER BY variant, attack, knowledge, nth) AS cell FROM named;

-- Images of a batch hang together (shared) where they share a path, or statistics of the batch, be it while attacked.
-- Natural rows score the clean image. Under `fixed`, an attack along one path a batch is answered on that path.
-- learned: the natural score over fresh draws, whatever the answer.
-- path_variance: the variance of the score over paths; null where it is not known, as it is not from one draw.
CREATE OR REPLACE TEMP TABLE scores AS
WITH how AS (
    SELECT unit_id, start, greatest(batch, 1) AS batch,
        path_sharing = 'batch' OR (path_sharing = 'attack' AND evaluations.knowledge = 'fixed')
            OR coalesce(batch_statistics, eval_mode <> 'eval') OR coalesce(attack_mode, 'eval') <> 'eval' AS shared,
        -- What was seen goes before what was described: an imported network of many paths describes none.
        coalesce(NOT random_output, log2_paths = 0 AND coalesce(noise_255, 0) = 0, false) AS one_path
    FROM evaluations LEFT JOIN (SELECT unit_id AS network_id, log2_paths FROM trials) USING (network_id)
), images AS (
    SELECT cell, axes, unit_id, example, label, draws, l2, linf, natural_correct, natural_predictions,
        CASE WHEN examples.attack = 'natural' THEN natural_correct ELSE adversarial_correct END AS correct,
        CASE WHEN examples.attack = 'natural' THEN natural_predictions ELSE adversarial_predictions END AS predictions
    FROM asked JOIN examples USING (unit_id)
)
SELECT cell, axes, example, answer, shared, batch, draws, l2, linf, one_path,
    start + (example - start) // batch * batch AS block,
    scored(answer, natural_predictions, natural_correct, draws) AS natural_score, natural_correct / draws AS learned,
    scored(answer, predictions, correct, draws) AS score,
    CASE WHEN one_path THEN 0 WHEN answer = 'expected' AND draws > 1
        THEN correct / draws * (1 - correct / draws) / (draws - 1) END::DOUBLE AS path_variance,
    CASE WHEN shared AND answer = 'expected' THEN list_transform(predictions, lambda given: given = label) END AS hits
FROM images JOIN how USING (unit_id) CROSS JOIN (SELECT unnest(getvariable('answers')) AS answer);

CREATE OR REPLACE TEMP TABLE by_example AS
SELECT cell, answer, example, count(*) AS seeds, avg(score) AS score, avg(natural_score) AS natural_score,
    avg(learned) AS learned, bool_or(shared) AS shared, bool_and(one_path) AS one_path, max(batch) AS batch, min(block) AS block,
    CASE WHEN count(path_variance) = count(*) THEN sum(path_variance) / count(*) ** 2 END AS path_variance
FROM scores
GROUP BY cell, answer, example;
