-- The attacks that the probes of a sweep ($sweep) made, as they were resolved.
SELECT DISTINCT probe, attack_settings
FROM probes WHERE attack_settings IS NOT NULL
    AND unit_id IN (SELECT unit_id FROM plans WHERE sweep = $sweep AND kind = 'probe')
ORDER BY probe, attack_settings
