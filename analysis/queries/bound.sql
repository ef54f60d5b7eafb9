-- Theorem 3.1 of the RNA paper, evaluated on measured images, beside the transfer that was measured on them; a row for
-- each pair (a attacked, b answers): two members of one network's norms, or two networks. docs/theory.md says what each
-- quantity is. `bound` is null where it says nothing (`vacuous`): the denominator is not positive, or it is 1 or more.
-- `bound_at_zero` is the least that it could be, at eps 0: from 1 on no gradient and no smoothness is small enough.
-- `seed` is null in a sweep that varies none. Columns ending in _q are the same with the 0.95 quantile for each maximum and
-- the 0.05 quantile for each minimum: what the terms are on most images, and NOT a bound on anything.
WITH asked AS (
    SELECT sweep, variant, source, attack AS probe, axes, unit_id, min(position) AS position
    FROM plans WHERE kind = 'probe' GROUP BY ALL
), by_example AS (
    SELECT sweep, variant, source, probe, axes, min(position) AS position, eps_255 / 255 AS eps, member, other, example,
        max(value) FILTER (measure = 'loss_a') AS loss_a,
        max(value) FILTER (measure = 'loss_b') AS loss_b,
        min(value) FILTER (measure IN ('target_loss_a', 'target_loss_b')) AS target_loss,
        max(value) FILTER (
            measure IN ('gradient_norm_a', 'gradient_norm_b', 'target_gradient_norm_a', 'target_gradient_norm_b')
        ) AS gradient_norm,
        max(abs(value)) FILTER (
            measure IN ('smoothness_a', 'smoothness_b', 'target_smoothness_a', 'target_smoothness_b')
        ) AS smoothness,
        max(value) FILTER (measure = 'cosine') AS similarity,
        max(value) FILTER (measure = 'label') AS label,
        max(value) FILTER (measure = 'target') AS target,
        max(value) FILTER (measure = 'prediction_a') AS prediction_a,
        max(value) FILTER (measure = 'prediction_b') AS prediction_b,
        max(value) FILTER (measure = 'adversarial_prediction_a') AS adversarial_a,
        max(value) FILTER (measure = 'adversarial_prediction_b') AS adversarial_b
    FROM (SELECT unit_id, measure, example, member, other, value FROM measures WHERE probe = 'bound')
        JOIN asked USING (unit_id)
        JOIN (SELECT unit_id, eps_255 FROM probes WHERE probe = 'bound') USING (unit_id)
    GROUP BY ALL
), terms AS (
    -- Rounded, because threads add up in any order: else the same rows give another last digit.
    SELECT sweep, variant, source, probe, axes, min(position) AS position, eps, member, other, count(*) AS n,
        round(avg(loss_a), 12) AS risk_a, round(avg(loss_b), 12) AS risk_b,
        avg((prediction_a <> label)::INT) AS error_a, avg((prediction_b <> label)::INT) AS error_b,
        min(target_loss) AS target_loss, quantile_cont(target_loss, 0.05) AS target_loss_q,
        max(gradient_norm) AS gradient_norm, quantile_cont(gradient_norm, 0.95) AS gradient_norm_q,
        max(similarity) AS similarity, quantile_cont(similarity, 0.95) AS similarity_q,
        max(smoothness) AS smoothness, quantile_cont(smoothness, 0.95) AS smoothness_q,
        sum((prediction_a = label AND adversarial_a = target)::INT) AS hits,
        sum(
            (prediction_a = label AND prediction_b = label AND adversarial_a = target AND adversarial_b = target)::INT
        ) AS transferred
    FROM by_example GROUP BY ALL
), denominators AS (
    SELECT *,
        target_loss - gradient_norm * eps * (sqrt(greatest(0, 1 + similarity) / 2) + 1) - smoothness * eps ** 2
            AS denominator,
        target_loss_q - gradient_norm_q * eps * (sqrt(greatest(0, 1 + similarity_q) / 2) + 1) - smoothness_q * eps ** 2
            AS denominator_q
    FROM terms
), bounds AS (
    SELECT *, CASE WHEN denominator > 0 THEN (risk_a + risk_b) / denominator END AS stated,
        CASE WHEN denominator_q > 0 THEN (risk_a + risk_b) / denominator_q END AS not_a_bound_q
    FROM denominators
), wilson AS (  -- as in analysis/statistics.py
    SELECT *, transferred / n AS transfer_rate, 1.959963984540054 ** 2 AS z2,
        (transfer_rate + z2 / (2 * n)) / (1 + z2 / n) AS centre,
        sqrt(z2 * (transfer_rate * (1 - transfer_rate) / n + z2 / (4 * n * n))) / (1 + z2 / n) AS half
    FROM bounds
)
SELECT sweep, coalesce(source, variant) AS variant_a, variant AS variant_b, member AS member_a, other AS member_b,
    TRY_CAST(regexp_extract(axes, '"seed": ?([0-9]+)', 1) AS BIGINT) AS seed, probe, n, eps,
    transfer_rate, greatest(0, round(centre - half, 12)) AS low, least(1, round(centre + half, 12)) AS high,
    CASE WHEN stated < 1 THEN stated END AS bound, coalesce(stated >= 1, true) AS vacuous,
    CASE WHEN target_loss > 0 THEN (risk_a + risk_b) / target_loss END AS bound_at_zero,
    risk_a, risk_b, denominator, target_loss, gradient_norm, similarity, smoothness,
    not_a_bound_q, denominator_q, target_loss_q, gradient_norm_q, similarity_q, smoothness_q,
    error_a, error_b, hits / n AS hit_rate
FROM wilson
ORDER BY sweep, position, seed, variant_a, member_a, member_b
