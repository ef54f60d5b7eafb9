-- Attacks without a radius, of every sweep of the store: those that look for the smallest perturbation, and Gaussian noise
-- (gaussian-25.5: of a deviation of 25.5/255, where eps_space says that it is measured). Accuracy over fresh draws in [0, 1], with
-- its 95 % Wilson interval over n examples, where nothing limits the attack; median distances for pixels in [0, 1], over the images that
-- the network had right in half of its answers or more; then
-- the curve: accuracy where the attacker stays within a radius (linf in 255ths) and leaves the image as it is where the
-- attack needs more. Seeds are averaged within an example; where images share draws, their chance is in no interval.
WITH found AS (
    SELECT sweep, variant, attack, knowledge, eps_space, position, evaluated.draws, example, linf, l2,
        adversarial_correct / evaluated.draws AS attacked, natural_correct / evaluated.draws AS clean
    FROM (
            SELECT unit_id, example, linf, l2, adversarial_correct, natural_correct FROM examples
        )
        JOIN (
            SELECT unit_id, draws, eps_space FROM evaluations WHERE attack <> 'natural' AND eps_255 IS NULL
        ) AS evaluated USING (unit_id)
        JOIN plans USING (unit_id)
    WHERE kind = 'evaluate'
), medians AS (
    SELECT sweep, variant, attack, knowledge, eps_space, min(position) AS position, max(draws) AS draws,
        median(l2) FILTER (clean >= 0.5) AS median_l2, median(linf) FILTER (clean >= 0.5) AS median_linf
    FROM found GROUP BY ALL
), by_example AS (
    SELECT sweep, variant, attack, knowledge, eps_space, example, avg(attacked) AS score, avg(clean) AS clean,
        -- A millionth more than the radius: distances are stored in single precision.
        avg(CASE WHEN linf <= 1.000001 * 1 / 255 THEN attacked ELSE clean END) AS linf_1,
        avg(CASE WHEN linf <= 1.000001 * 2 / 255 THEN attacked ELSE clean END) AS linf_2,
        avg(CASE WHEN linf <= 1.000001 * 4 / 255 THEN attacked ELSE clean END) AS linf_4,
        avg(CASE WHEN linf <= 1.000001 * 8 / 255 THEN attacked ELSE clean END) AS linf_8,
        avg(CASE WHEN linf <= 1.000001 * 16 / 255 THEN attacked ELSE clean END) AS linf_16,
        avg(CASE WHEN linf <= 1.000001 * 32 / 255 THEN attacked ELSE clean END) AS linf_32,
        avg(CASE WHEN l2 <= 1.000001 * 0.25 THEN attacked ELSE clean END) AS l2_0_25,
        avg(CASE WHEN l2 <= 1.000001 * 0.5 THEN attacked ELSE clean END) AS l2_0_5,
        avg(CASE WHEN l2 <= 1.000001 * 1 THEN attacked ELSE clean END) AS l2_1,
        avg(CASE WHEN l2 <= 1.000001 * 2 THEN attacked ELSE clean END) AS l2_2
    FROM found GROUP BY ALL
), means AS (
    -- Rounded, because threads add up in any order: else the same rows give another last digit.
    SELECT sweep, variant, attack, knowledge, eps_space, count(*) AS n, round(avg(score), 12) AS accuracy,
        round(avg(clean), 12) AS natural_accuracy, round(avg(COLUMNS('^(linf|l2)_')), 12) AS '\0'
    FROM by_example GROUP BY ALL
), wilson AS (  -- as in analysis/statistics.py
    SELECT *, 1.959963984540054 ** 2 AS z2, (accuracy + z2 / (2 * n)) / (1 + z2 / n) AS centre,
        sqrt(z2 * (accuracy * (1 - accuracy) / n + z2 / (4 * n * n))) / (1 + z2 / n) AS half
    FROM means
)
SELECT sweep, variant, attack, knowledge, eps_space, n, draws, natural_accuracy, accuracy,
    greatest(0, round(centre - half, 12)) AS low, least(1, round(centre + half, 12)) AS high, median_l2, median_linf,
    linf_1, linf_2, linf_4, linf_8, linf_16, linf_32, l2_0_25, l2_0_5, l2_1, l2_2
FROM medians JOIN wilson USING (sweep, variant, attack, knowledge, eps_space)
ORDER BY sweep, position
