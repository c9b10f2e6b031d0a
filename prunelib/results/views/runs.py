"""The views on how a run went: costs and failures."""

from __future__ import annotations

from prunelib.results.views.base import view

COSTS = view(
    "costs",
    "what each stage of a run cost, failed attempts included; reused units cost nothing",
    "run stage model units seconds predicted_seconds spent_to_predicted cpu_hours gpu_hours "
    "seconds_per_unit starts seconds_per_start switches seconds_per_switch peak_memory_mb",
    """
WITH models AS (
    SELECT run, unnest(map_entries(from_json(predicted, '"MAP(VARCHAR, MAP(VARCHAR, DOUBLE))"')))
               AS stages
    FROM runs
),
plans AS (
    SELECT run, stages.key AS model, unnest(map_entries(stages.value)) AS plan FROM models
)
SELECT u.run, u.stage, u.model, count(DISTINCT unit_id) AS units, sum(seconds) AS seconds,
       any_value(p.plan.value) AS predicted_seconds,
       sum(seconds) / nullif(any_value(p.plan.value), 0) AS spent_to_predicted,
       sum(seconds) FILTER (gpus = 0) / 3600 AS cpu_hours,
       sum(seconds * gpus) FILTER (gpus > 0) / 3600 AS gpu_hours,
       (sum(seconds) - coalesce(sum(start_seconds), 0) - coalesce(sum(switch_seconds), 0))
           / count(DISTINCT unit_id) AS seconds_per_unit,
       count(start_seconds) AS starts, avg(start_seconds) AS seconds_per_start,
       count(switch_seconds) AS switches, avg(switch_seconds) AS seconds_per_switch,
       max(peak_memory_mb) AS peak_memory_mb
FROM units u
LEFT JOIN plans p ON p.run = u.run AND p.model = u.model AND p.plan.key = u.stage
GROUP BY ALL
ORDER BY ALL
""",
    units="units of work",
    seconds="time of all attempts together",
    predicted_seconds="what the plan said when the run first started; null if nothing like it had "
    "been measured in the same results",
    spent_to_predicted="seconds / predicted_seconds",
    cpu_hours="hours of workers on CPUs, each of which has one CPU; null if there were none",
    gpu_hours="hours of workers on GPUs times the GPUs that each held; null if there were none",
    seconds_per_unit="time per unit, without starts and switches of engines",
    starts="times that an engine was started",
    seconds_per_start="mean time of a start, with the first intervention and its check; null if "
    "none",
    switches="times that a live engine was switched to another intervention",
    seconds_per_switch="mean time of a switch, with its check; null if none",
    peak_memory_mb="largest resident memory of a worker in MB",
)

FAILED_UNITS = view(
    "failed_units",
    "units whose latest attempt failed and that no run has done since",
    "run unit_id stage model detail attempts worker error_kind error_text finished_at",
    """
SELECT f.run, f.unit_id, f.stage, f.model, f.detail, f.attempts, f.worker, f.error_kind,
       f.error_text, f.finished_at
FROM (
    SELECT *, count(*) OVER (PARTITION BY run, unit_id) AS attempts
    FROM units
    QUALIFY row_number() OVER (
        PARTITION BY run, unit_id ORDER BY finished_at DESC, attempt DESC) = 1
) f
WHERE f.status = 'failed' AND NOT EXISTS (
    SELECT 1 FROM units d
    WHERE d.unit_id = f.unit_id AND d.status = 'done' AND d.finished_at >= f.finished_at)
ORDER BY f.run, f.stage, f.model, f.unit_id
""",
    detail="what the unit does",
    attempts="how often it was tried",
    worker="who tried last",
    error_kind="class of the last error",
    error_text="message of the last error",
    finished_at="when the last attempt ended (UTC)",
)

VIEWS = (COSTS, FAILED_UNITS)
