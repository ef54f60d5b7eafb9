-- What the table of a sweep and its comparisons are computed from, kept for the connection: asked (the cells of sweep
-- $sweep), units (those of them that are done), blocks (which images hang together), and scores('expected' or 'vote' or
-- 'worst'), one row a cell, seed and example, read from the store each time that it is asked for. What is computed of them
-- is for means.sql, uneven.sql, shared.sql and distances.sql to fill in.
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
SELECT *, dense_rank() OVER (ORDER BY variant, attack, knowledge, nth)::INT AS cell FROM named;

CREATE OR REPLACE TEMP TABLE units AS
SELECT cell, dense_rank() OVER (ORDER BY axes)::INT AS seed, unit_id, start, stop, greatest(batch, 1) AS batch,
    evaluations.attack = 'natural' AS of_clean, evaluations.attack <> 'natural' AND eps_255 IS NULL AS unbounded,
    -- Images of a batch hang together where they share a path, or statistics of the batch, be it while attacked. Under
    -- `fixed`, an attack along one path a batch is answered on that path.
    path_sharing = 'batch' OR (path_sharing = 'attack' AND evaluations.knowledge = 'fixed')
        OR coalesce(batch_statistics, eval_mode <> 'eval') OR coalesce(attack_mode, 'eval') <> 'eval' AS shared,
    -- What was seen goes before what was described: an imported network of many paths describes none.
    coalesce(NOT random_output, log2_paths = 0 AND coalesce(noise_255, 0) = 0, false) AS one_path
FROM evaluations JOIN asked USING (unit_id)
    LEFT JOIN (SELECT unit_id AS network_id, log2_paths FROM trials) USING (network_id);

CREATE OR REPLACE TEMP TABLE blocks AS
SELECT cell, example, max(batch) AS batch, min(start + (example - start) // batch * batch) AS block
FROM (SELECT *, unnest(range(start, stop)) AS example FROM units WHERE shared)
GROUP BY cell, example;

-- Natural rows score the clean image. path_variance is the variance of the score over paths; NaN where it is not known, as
-- it is not from one draw. The smaller side of a join stands on its right (see store/views.py).
CREATE OR REPLACE TEMP MACRO scores(answer) AS TABLE
SELECT cell, seed, example, shared, unbounded, l2, linf, label, predictions,
    start + (example - start) // batch * batch AS block,
    scored(answer, natural_predictions, natural_correct, draws) AS natural_score,
    scored(answer, predictions, correct, draws) AS score,
    CASE WHEN answer = 'expected' AND draws > 1
        THEN (correct / draws) * (1 - correct / draws) / (draws - 1) ELSE 'nan' END::DOUBLE AS path_variance
FROM (
    SELECT *, CASE WHEN of_clean THEN natural_correct ELSE adversarial_correct END AS correct,
        CASE WHEN of_clean THEN natural_predictions ELSE adversarial_predictions END AS predictions
    FROM examples JOIN units USING (unit_id)
);

CREATE OR REPLACE TEMP TABLE by_example (
    cell INT, answer ENUM ('expected', 'vote', 'worst'), example INT, seeds INT, score DOUBLE, natural_score DOUBLE,
    path_variance DOUBLE
);
CREATE OR REPLACE TEMP TABLE by_seed (cell INT, answer ENUM ('expected', 'vote', 'worst'), seed INT, score DOUBLE);
CREATE OR REPLACE TEMP TABLE shared_paths (cell INT, shared_error DOUBLE, shared_df DOUBLE);
CREATE OR REPLACE TEMP TABLE distances (cell INT, median_l2 DOUBLE, median_linf DOUBLE);
