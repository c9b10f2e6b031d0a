"""What a report holds: its sections in order, with the question (SQL) behind each table."""

from __future__ import annotations

from dataclasses import dataclass

#: Rows of a table that a page shows; the SQL beside it gives all of them.
MOST_ROWS = 200


@dataclass(frozen=True)
class Question:
    """A table of a report.

    Attributes:
        title: what it holds, for people.
        view: where its columns come from, whose meanings are shown.
        columns: names, separated by blanks. ``x`` with ``x_low`` and ``x_high`` is shown in one
            cell, as a value with its interval.
        where: a further condition.
        order: what its lines are sorted by.
    """

    title: str
    view: str
    columns: str
    where: str = ""
    order: str = ""

    def sql(self, run: str) -> str:
        """The question about a run, as a user would ask it."""
        names = ", ".join(f'"{name}"' if name in _QUOTED else name for name in self.columns.split())
        also = f"\n  AND {self.where}" if self.where else ""
        order = f"\nORDER BY {self.order}" if self.order else ""
        quoted = run.replace("'", "''")
        return f"SELECT {names}\nFROM {self.view}\nWHERE run = '{quoted}'{also}{order}"


@dataclass(frozen=True)
class Section:
    """A part of a report, which appears if one of its tables has rows or a figure is of it."""

    name: str
    title: str
    text: str
    questions: tuple[Question, ...]


_QUOTED = {"index", "count", "order", "value"}


def _ends(*names: str) -> str:
    return " ".join(f"{name} {name}_low {name}_high" for name in names)


SECTIONS = (
    Section(
        "leaderboard", "Leaderboard",
        "Means over the reported tasks. Intervals are over queries and, of random sets, over "
        "these too. A choice is worth something if it differs from the baseline and from its "
        "random controls.",
        (Question(
            "Methods and controls", "leaderboard",
            f"model method matched_to layer rate {_ends('accuracy', 'copying_error', 'difference')}"
            f" p_value {_ends('difference_to_random')} random_rank random_sets random_p "
            f"{_ends('difference_to_random_search')} random_search_rank random_searches "
            "random_search_p tasks prompts queries missing_cells"),)),
    Section(
        "tasks", "Tasks and shots",
        "Accuracy and copying error of every intervention on every task and number of shots of "
        "the report split.",
        (Question(
            "Each task", "evaluations",
            f"model method task shots {_ends('accuracy', 'copying_error')} layer rate "
            "control_seed prompts queries errors engine", "purpose = 'report'",
            "model, task, shots, role, method, control_seed"),
         Question(
            "Choices against the baseline and their controls", "comparisons",
            f"model method reference task shots accuracy reference_accuracy {_ends('difference')} "
            "p_value q_value copying_error reference_copying_error copying_q_value sets queries",
            "role = 'chosen'", "model, method, reference, task, shots"),
         Question(
            "Copying errors and what chance would give", "copying",
            "model method matched_to task shots copying_error chance copy_share "
            "copied_last_share accuracy queries", "", "model, method, task, shots"),
         Question(
            "Seeds", "seeds",
            "model method role task seeds accuracy accuracy_sd difference difference_sd",
            "seeds > 1", "model, method, task"),
         Question(
            "Ablations on tasks that they were not chosen on", "transfer",
            f"model method control_seed chosen_on task shots accuracy {_ends('difference')} "
            "queries", "chosen_on <> task", "model, method, chosen_on, task, shots"))),
    Section(
        "search", "Search",
        "Every layer and share that was tried, on examples that are not reported. The control "
        "went through the same search with a random ranking.",
        (Question(
            "What was chosen", "chosen",
            "model method proxy only_task control_seed layer rate count warnings search_n "
            "search_accuracy search_baseline_accuracy detectable tied random_sets "
            "random_sets_as_good random_searches random_searches_as_good intervention"),
         Question(
            "Every cell", "grid",
            f"model method control_seed task layer rate count {_ends('accuracy')} copying_error "
            "baseline_accuracy difference n", "",
            "model, method, control_seed, task, layer, rate"))),
    Section(
        "attribution", "Attribution and its precision",
        "How far scores would move with other prompts, and how far they are from the change that "
        "they explain. A choice rests on a ranking only where two halves of the queries agree.",
        (Question(
            "Error over prompts, and agreement of two halves", "score_errors",
            "model method objective proxy seed layer queries relative_error error_estimate "
            "spearman share count shared shared_by_chance nodes", "",
            "model, method, proxy, seed, layer, share"),
         Question(
            "Completeness", "completeness",
            "model method objective proxy seed layer prompts nodes error_estimate gap_median "
            "gap_p95 gap_max", "", "model, method, proxy, seed, layer"),
         Question(
            "Planted components that were found", "recall",
            "model method objective proxy seed layer planted found recall"),
         Question(
            "Scorers", "scorers",
            f"model method recall layer rate accuracy {_ends('difference', 'difference_to_random')}"
            " units seconds"))),
    Section(
        "heads", "Heads and FFNs",
        "Scores of attention heads and FFNs, and what in-context heads do.",
        (Question(
            "Most important first", "component_importance",
            "model site score task shots rank layer index value standard_error prompts queries",
            "rank <= 3", "model, site, score, task, shots, rank"),
         Question(
            "Without in-context heads", "in_context",
            f"model task shots removed heads gold {_ends('accuracy', 'difference')} "
            f"{_ends('difference_to_random')} random_sets p_value rank_p_value queries", "",
            "model, task, shots, removed, gold"),
         Question(
            "What in-context heads read", "label_readings",
            "model task label layer index head_of causal causal_error log_probability_increase "
            "log_probability_increase_error logit_minus logit_minus_error logit_minus_reversed "
            "logit_minus_reversed_error attention attention_reversed queries", "",
            "model, task, label, head_of, layer, index"),
         Question(
            "Majority-label and recency bias", "label_bias",
            f"model task mitigation strength mode accuracy {_ends('majority_bias')} "
            f"majority_bias_floor majority_bias_p_value {_ends('recency_bias')} "
            "recency_bias_floor recency_bias_p_value refused queries", "",
            "model, task, mitigation, strength"))),
    Section(
        "removal", "Removal",
        "Accuracy while heads, FFNs or both are removed, the least important first.",
        (Question(
            "Means over tasks", "removal_means",
            f"model order shots heads ffns {_ends('accuracy', 'difference')} tasks orders "
            "rank_p_value queries", "", "model, shots, \"order\", heads, ffns"),
         Question(
            "Each task", "removal_curves",
            f"model order ranked_by control_seed task shots heads ffns {_ends('accuracy')} "
            f"{_ends('difference')} queries", "", "model, task, shots, \"order\", heads, ffns"),
         Question(
            "What is left of prefix matching and copying", "retention",
            "model score order task shots heads heads_removed retained", "",
            "model, score, \"order\", task, shots, heads"))),
    Section(
        "correlations", "Rank correlations",
        "How alike rankings are that differ in score, task, number of shots, method or prompts.",
        (Question(
            "Heads and FFNs", "importance_agreement",
            "model site score task shots other_score other_task other_shots "
            f"{_ends('spearman')} overlap_top components", "",
            "model, site, score, other_score, task, other_task, shots, other_shots"),
         Question(
            "Attributions of neurons", "overlap",
            "model layer method proxy prompts other_method other_proxy other_prompts spearman "
            "share count shared shared_by_chance jaccard", "",
            "model, layer, method, other_method, proxy, other_proxy, share"),
         Question(
            "Few prompts against more of them", "agreement",
            "model layer method prompts other_method other_prompts spearman share count shared "
            "jaccard", "", "model, layer, method, other_method, share"))),
    Section(
        "capability", "Other abilities",
        "Perplexity of texts, multiple choice, task vectors and tasks of lm-evaluation-harness, "
        "before and after.",
        (Question(
            "Perplexity and multiple choice", "capability",
            f"model method matched_to source texts baseline_perplexity {_ends('perplexity_ratio')} "
            f"questions baseline_accuracy accuracy {_ends('difference')}", "",
            "model, source, role, method"),
         Question(
            "Task vectors", "task_vector_accuracy",
            f"model method task shots layer {_ends('zero_shot', 'icl', 'task_vector')} queries", "",
            "model, method, task, shots"),
         Question(
            "Tasks of lm-evaluation-harness", "lm_eval",
            "model method matched_to task shots metric filter examples errors baseline_score score "
            f"{_ends('difference')}", "", "model, task, metric, filter, role, method"))),
    Section(
        "failures", "Failures",
        "Units of work that failed and that no run has done since. Answers that are missing are "
        "counted in the column errors of the tables of tasks.",
        (Question(
            "Failed units", "failed_units",
            "model stage detail attempts worker error_kind error_text finished_at unit_id", "",
            "finished_at"),)),
    Section(
        "costs", "Costs",
        "Time of all attempts, failed ones included. Units that an earlier run had done cost "
        "nothing.",
        (Question(
            "Stages", "costs",
            "model stage units seconds predicted_seconds spent_to_predicted cpu_hours gpu_hours "
            "seconds_per_unit starts seconds_per_start switches seconds_per_switch peak_memory_mb",
            "", "model, stage"),)),
)
