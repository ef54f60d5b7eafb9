-- What the sweep's networks are and what they were trained on, as found in the store: one row for each kind.
SELECT network, width, settings->>'$.network.weights_sha256' IS NOT NULL AS given, trials.data, train_examples, epochs, trials.attack,
    precision
FROM plans JOIN trials USING (unit_id)
WHERE sweep = getvariable('sweep') AND plans.kind = 'train' AND state = 'finished'
GROUP BY ALL
ORDER BY min(plans.position), network, width, trials.data, train_examples, epochs, trials.attack, precision
