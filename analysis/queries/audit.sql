-- For each asked-for pair of sets of units (variables: sets, units; pairs, xs, ys, naturals, batches): how the score of
-- the one differs from the other's, or from the other's clean images, on the examples that both have: a histogram for
-- each block, the examples of a batch where they share paths. Draws of one example are pooled within a network, networks
-- averaged.
WITH sets AS (
    SELECT unnest($sets) AS set, unnest($units) AS unit_id
), pairs AS (
    SELECT unnest($pairs) AS pair, unnest($xs) AS x, unnest($ys) AS y, unnest($naturals) AS is_natural,
        unnest($batches) AS batch
), scores AS MATERIALIZED (
    SELECT set, network_id, example,
        sum(adversarial_correct) / sum(draws) AS attacked, sum(natural_correct) / sum(draws) AS clean
    FROM examples JOIN sets USING (unit_id)
    GROUP BY ALL
), by_example AS (
    SELECT pair, left_side.example // batch AS block, avg(left_side.attacked) AS x,
        avg(CASE WHEN is_natural THEN right_side.clean ELSE right_side.attacked END) AS y
    FROM scores AS left_side
        JOIN pairs ON pairs.x = left_side.set
        JOIN scores AS right_side ON right_side.set = pairs.y
            AND right_side.network_id = left_side.network_id AND right_side.example = left_side.example
    GROUP BY pair, left_side.example, batch
)
SELECT pair, block, round(x - y, 9) AS difference, count(*) AS n, sum(x) AS x, sum(y) AS y
FROM by_example GROUP BY pair, block, round(x - y, 9)
ORDER BY pair, block, difference
