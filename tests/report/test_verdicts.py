"""Verdicts on stored curves whose effects are known, by the rules of config/claims.yaml itself."""

import json

import numpy as np
import pytest
import yaml
from scipy import stats
from stored_curves import ARMS, SCORERS, costs, write_curves, write_tier

from checkout import ROOT
from progrpo.analysis.contrasts import Estimate
from progrpo.analysis.statistics import holm
from progrpo.cli import main
from progrpo.errors import UserError
from progrpo.files import write_json
from progrpo.report.claims_file import Rule, load_claims
from progrpo.report.claims_page import measured
from progrpo.report.evidence import Evidence
from progrpo.report.verdicts import Verdict, decide, judge, targets
from progrpo.typed import check, read_yaml

CLAIMS = load_claims(ROOT / "config" / "claims.yaml")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    config = write_tier(folder)
    write_curves(folder)
    return config, Evidence(config, folder, {})


@pytest.fixture(scope="module")
def verdicts(world) -> dict[str, Verdict]:
    return {verdict.id: verdict for verdict in judge(CLAIMS, world[1])}


def test_known_effects_get_their_verdicts_and_absent_runs_say_so(verdicts):
    found = {name: verdict.verdict for name, verdict in verdicts.items()}
    for name in ("validity_flow", "ovf_vs_uniform", "ovf_noninferior", "pro_equal_calls", "pro_equal_samples"):
        assert found[name] == "supported", verdicts[name]
    assert found["previews_carry_signal"] == found["ovf_equals_best_of_n"] == "supported"
    assert found["pro_equal_iterations"] in ("not supported", "inconclusive")
    for name in ("validity_diffusion", "diffusion", "flash", "too_early", "clustering_share"):
        assert found[name] == "not run", verdicts[name]
    assert verdicts["flash"].why == "no curves of progrpo_flash_sd35m"


def test_effects_are_in_units_of_the_baselines_gain(world, tmp_path, verdicts):
    """So a scorer with another scale gives the same numbers."""
    assert verdicts["ovf_vs_uniform"].estimate.effect == pytest.approx(0.38, abs=0.08)
    write_curves(tmp_path, scale=5.0)
    scaled = {v.id: v for v in judge(CLAIMS, Evidence(world[0], tmp_path, {}))}
    assert scaled["ovf_vs_uniform"].estimate.effect == pytest.approx(
        verdicts["ovf_vs_uniform"].estimate.effect, abs=0.01
    )


def test_at_equal_calls_the_dearer_arm_is_read_off_its_curve(world, verdicts):
    """Flow-GRPO has done 792 / 1104 of its iterations, and these curves are straight."""
    config, evidence = world
    gains = {
        run: evidence.final_gains(run, "pickscore", range(8)).mean() for run in ("progrpo_sd35m", "flowgrpo_sd35m")
    }
    expected = gains["progrpo_sd35m"] / gains["flowgrpo_sd35m"] - 792 / 1104
    assert verdicts["pro_equal_calls"].estimate.effect == pytest.approx(expected, abs=0.02)
    assert verdicts["pro_equal_seconds"].estimate.effect == pytest.approx(expected, abs=0.02)


def test_what_random_pruning_and_the_oracle_span_gives_the_share(verdicts):
    value, low, high, n = verdicts["previews_carry_signal"].share
    assert low < 0.44 / 0.6 < high
    assert n == 8
    assert value == pytest.approx(0.44 / 0.6, abs=0.1)


def test_a_primary_claim_needs_no_fewer_seeds_than_an_exact_test_and_more_for_holm(verdicts):
    """The spread is that of the interval, to which the prompts add, and alpha Holm's first, a sixth."""
    found = verdicts["ovf_vs_uniform"]
    assert found.needed == CLAIMS.exact_from == 8  # .25 is many times the spread here
    near = verdicts["pro_equal_iterations"]  # predicted .04
    half = (near.estimate.high - near.estimate.low) / 2
    assert near.estimate.sd == pytest.approx(half * np.sqrt(8) / stats.t.ppf(0.975, 7))
    power = stats.norm.ppf(1 - 0.025 / 6) + stats.norm.ppf(0.8)
    assert near.needed == max(8, np.ceil((power * near.estimate.sd / 0.04) ** 2))


def test_holm_counts_a_primary_claim_that_was_not_run(verdicts):
    assert verdicts["pro_equal_calls"].p == 2**-8
    assert verdicts["pro_equal_calls"].p_holm == 6 * 2**-8  # not 5: that of the UNet was not run


@pytest.mark.parametrize(
    ("rising", "complaint"),
    [
        ([s for s in SCORERS if s != "scene_strict"], "no gain in every seed by scene_strict"),
        ([s for s in SCORERS if s not in ("imagereward", "hpsv2")], "no unused scorer gains"),
    ],
)
def test_a_baseline_that_learns_its_reward_alone_voids_the_contrasts(world, tmp_path, rising, complaint):
    write_curves(tmp_path, rising=rising)
    found = {v.id: v for v in judge(CLAIMS, Evidence(world[0], tmp_path, {}))}
    assert found["validity_flow"].verdict == "not supported"
    assert found["pro_equal_calls"].verdict == found["previews_carry_signal"].verdict == "void"
    assert complaint in found["pro_equal_calls"].why


def test_a_void_claim_does_not_ease_the_others(world, tmp_path):
    """As one that was not run: it can never be supported, so Holm must not take it away first."""
    data = read_yaml(ROOT / "config" / "claims.yaml")
    flow = {**data["guards"]["flow"], "every_seed": ["pickscore"]}
    data["guards"] |= {"flow": flow, "never": {**flow, "every_seed": ["scene_strict"]}}
    next(claim for claim in data["claims"] if claim["id"] == "ovf_vs_uniform")["guard"] = "never"
    (tmp_path / "claims.yaml").write_text(yaml.safe_dump(data))
    claims = load_claims(tmp_path / "claims.yaml")
    write_curves(tmp_path, noise=0.25, rising=SCORERS[:5])
    found = {v.id: v for v in judge(claims, Evidence(world[0], tmp_path, {}))}
    assert (found["ovf_vs_uniform"].verdict, found["ovf_vs_uniform"].p_holm) == ("void", None)
    primary = [claim.id for claim in claims.of_tier("mini") if claim.family == "primary"]
    p = {name: found[name].p if found[name].p_holm is not None else 1.0 for name in primary}
    assert [found[name].p_holm or 1.0 for name in primary] == holm(list(p.values()))
    assert holm(list(p.values())) != holm(list({**p, "ovf_vs_uniform": found["ovf_vs_uniform"].p}.values()))


def test_three_seeds_are_judged_by_the_pooled_error_and_one_is_inconclusive(world, tmp_path):
    write_curves(tmp_path / "three", seeds=3)
    write_curves(tmp_path / "one", seeds=1)
    three, one = (
        {v.id: v for v in judge(CLAIMS, Evidence(world[0], tmp_path / name, {}))} for name in ("three", "one")
    )
    assert three["pro_equal_samples"].estimate.method == "pooled t"
    assert three["pro_equal_samples"].verdict == "supported"
    assert one["pro_equal_samples"].verdict == "inconclusive"


def test_the_pooled_error_is_that_of_gains_at_the_contrasts_own_budget(world, tmp_path):
    """The arms that were compared after fewer iterations differ more there: the error of their final gains would be too small."""
    write_curves(tmp_path, seeds=3)
    early = np.random.default_rng(0).normal(0, 0.3, (3, 1))
    for seed in range(3):  # a step of Flow-GRPO's curve that its final weights do not show
        path = tmp_path / "curves" / f"flowgrpo_sd35m-seed{seed}.npz"
        stored = dict(np.load(path))
        stored["scores"][:-1] += early[seed]
        np.savez(path, **stored)
    evidence = Evidence(world[0], tmp_path, {})
    found = {v.id: v.estimate for v in judge(CLAIMS, evidence)}
    wide = found["pro_equal_calls"].high - found["pro_equal_calls"].low
    assert wide > 2 * (found["pro_equal_iterations"].high - found["pro_equal_iterations"].low)


def test_an_arm_that_begins_as_another_does_counts_once_in_the_pooled_error(world, tmp_path):
    """Two arms with the same settings and seeds do not differ by noise: a table with both would show too little of it."""
    alone, beside = (tmp_path / name for name in ("alone", "beside"))
    for folder in (alone, beside):
        write_curves(folder, seeds=3)
    for seed in range(3):
        for suffix in (".npz", ".costs.json"):
            first = beside / "curves" / f"plain12_sd35m-seed{seed}{suffix}"
            (beside / "curves" / f"plain12_equal_calls_sd35m-seed{seed}{suffix}").write_bytes(first.read_bytes())
    once, twice = (
        {v.id: v.estimate for v in judge(CLAIMS, Evidence(world[0], folder, {}))} for folder in (alone, beside)
    )
    assert once["ovf_equals_best_of_n"] == twice["ovf_equals_best_of_n"]


def test_an_arm_that_ends_before_the_budget_gives_no_error(world, tmp_path):
    write_curves(tmp_path, seeds=3)
    evidence = Evidence(world[0], tmp_path, {})
    budget = evidence.budget(["progrpo_sd35m", "flowgrpo_sd35m"], "calls")
    assert evidence.reaches("progrpo_sd35m", "calls", budget)
    assert not evidence.reaches("progrpo_sd35m", "calls", budget + 2 * evidence.rate("progrpo_sd35m", "calls"))


def test_a_curve_that_was_cut_short_is_refused_and_moves_no_budget(world, tmp_path):
    write_curves(tmp_path, seeds=3)
    path = tmp_path / "curves" / "uniform_sd35m-seed2.npz"
    stored = dict(np.load(path))
    np.savez(path, **{**stored, "iterations": stored["iterations"][:2], "scores": stored["scores"][:2]})
    with pytest.raises(UserError, match="the seeds of uniform_sd35m have several last iterations"):
        judge(CLAIMS, Evidence(world[0], tmp_path, {}))


def test_seeds_of_different_configurations_are_not_averaged(world, tmp_path):
    write_curves(tmp_path, seeds=3)
    path = tmp_path / "curves" / "ovf_sd35m-seed1.npz"
    np.savez(path, **{**dict(np.load(path)), "provenance": np.array(json.dumps({"config": "a", "decides": "another"}))})
    judge(CLAIMS, Evidence(world[0], tmp_path, {}))  # of the others it is not known: older files do not say
    other = path.with_name("ovf_sd35m-seed2.npz")
    np.savez(other, **{**dict(np.load(other)), "provenance": np.array(json.dumps({"config": "a", "decides": "one"}))})
    with pytest.raises(UserError, match="the seeds of ovf_sd35m have several configurations"):
        judge(CLAIMS, Evidence(world[0], tmp_path, {}))
    write_curves(tmp_path, seeds=3)
    for seed, decides in ((0, "one"), (1, "another")):
        path = tmp_path / "curves" / f"ovf_sd35m-seed{seed}.costs.json"
        write_json(path, {**costs(792, seed), "decides": decides})
    with pytest.raises(UserError, match="the seeds of ovf_sd35m have several configurations"):
        judge(CLAIMS, Evidence(world[0], tmp_path, {}))


def test_a_contrast_of_several_metrics_says_that_its_unit_is_another(verdicts):
    assert verdicts["out_of_domain"].unit == "standard deviations of the base model's prompts"
    assert verdicts["pro_equal_calls"].unit == "baseline's mean gain"
    assert " SD [" in measured(verdicts["out_of_domain"])
    assert "SD" not in measured(verdicts["pro_equal_calls"])


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [
        (lambda c: c.update(tiers=["minni"]), "ovf_vs_uniform: 'minni' is no tier; known: mini"),
        (lambda c: c["comparison"].update(contrast={"ovf_x": 1, "uniform_sd35m": -1}), "'ovf_x' is no run"),
        (lambda c: c.update(metrics=["picscore"]), "'picscore' is no metric of the learning curve"),
        (lambda c: c["comparison"].update(contrast={"ovf_sd35m": 1, "progrpo_sd14": -1}), "arms of several models"),
    ],
)
def test_a_claim_of_what_the_tier_does_not_have_is_refused(world, tmp_path, capsys, edit, complaint):
    file = read_yaml(ROOT / "config" / "claims.yaml")
    edit(next(claim for claim in file["claims"] if claim["id"] == "ovf_vs_uniform"))
    (tmp_path / "claims.yaml").write_text(yaml.safe_dump(file))
    config = ["--config", str(world[1].source / "config.yaml")]
    assert main(["claims", "--own", "--claims", str(tmp_path / "claims.yaml"), *config]) == 2
    assert complaint in capsys.readouterr().err


def test_tiers_are_not_asked_for_outside_the_repository(world, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert judge(CLAIMS, world[1])


def test_published_pages_are_not_made_from_ones_own_results(world, capsys):
    assert main(["claims", "--own", "--pages", "--config", str(world[1].source / "config.yaml")]) == 2
    assert "--pages" in capsys.readouterr().err


def test_seconds_of_different_devices_are_not_compared(world, tmp_path):
    write_curves(tmp_path, seeds=2)
    write_json(tmp_path / "curves" / "progrpo_sd35m-seed1.costs.json", costs(792, 1, device="a GPU"))
    found = {v.id: v for v in judge(CLAIMS, Evidence(world[0], tmp_path, {}))}
    assert found["pro_equal_seconds"].verdict == "not run"
    assert found["pro_equal_calls"].verdict != "not run"


def test_a_baseline_without_any_gain_leaves_no_unit(world, tmp_path):
    write_curves(tmp_path, seeds=2)
    for seed in (0, 1):
        base, path = (tmp_path / "curves" / f"{name}-seed{seed}.npz" for name in ("base_sd35m", "flowgrpo_sd35m"))
        stored = dict(np.load(path))
        np.savez(path, **{**stored, "scores": np.repeat(np.load(base)["scores"], len(stored["iterations"]), axis=0)})
    found = {v.id: v for v in judge(CLAIMS, Evidence(world[0], tmp_path, {}))}
    assert found["validity_flow"].verdict == "not supported"
    assert found["pro_equal_samples"].verdict == "not run"
    assert "no unit" in found["pro_equal_samples"].why


def test_seeds_that_were_evaluated_on_other_prompts_are_refused(world, tmp_path):
    """The bootstrap draws a prompt for all seeds at once."""
    write_curves(tmp_path, seeds=3)
    for path in (tmp_path / "curves").glob("*-seed2.npz"):
        with np.load(path) as arrays:
            stored = dict(arrays)
        np.savez_compressed(path, **{**stored, "prompts": stored["prompts"][::-1]})
    with pytest.raises(UserError, match="the seeds of .* have several lists of prompts") as refused:
        judge(CLAIMS, Evidence(world[0], tmp_path, {}))
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"seed": 99}, "seed 99, but the curve beside it has 1; record the costs again"),
        ({"iterations": 5}, "iterations 5, but the curve beside it has 100; record the costs again"),
        ({"rollout_seconds": 0.0}, "rollout_seconds: Input should be greater than 0"),
        ({"update_calls": -1.0}, "update_calls: Input should be greater than 0"),
    ],
)
def test_costs_of_another_training_are_refused(world, tmp_path, changed, complaint):
    write_curves(tmp_path, seeds=3)
    path = tmp_path / "curves" / "progrpo_sd35m-seed1.costs.json"
    write_json(path, {**json.loads(path.read_text()), **changed})
    with pytest.raises(UserError, match=complaint):
        judge(CLAIMS, Evidence(world[0], tmp_path, {}))


def test_calls_are_counted_so_that_one_seed_decides(world, tmp_path):
    write_curves(tmp_path, seeds=1)
    found = {v.id: v for v in judge(CLAIMS, Evidence(world[0], tmp_path, {}))}["fewer_calls"]
    assert (found.verdict, found.estimate.n) == ("supported", 1)
    assert found.estimate.low == found.estimate.high == found.estimate.effect


def test_other_prompts_than_the_base_models_are_refused(world, tmp_path):
    write_curves(tmp_path, seeds=1)
    path = tmp_path / "curves" / "base_sd35m-seed0.npz"
    stored = dict(np.load(path))
    stored["prompts"][0] = "another"
    np.savez(path, **stored)
    with pytest.raises(UserError, match="not the prompts of its base model"):
        judge(CLAIMS, Evidence(world[0], tmp_path, {}))


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [
        ({"scores": np.full((1, 6, 30, 2), np.nan, np.float32)}, "not finite"),
        ({"scores": np.zeros((2, 6, 30, 2), np.float32)}, "do not fit iterations"),
        ({"provenance": np.array("[]")}, "provenance"),
        ({"prompts": np.zeros(30)}, "prompts: missing or of another kind"),
    ],
)
def test_a_damaged_curve_is_one_line(world, tmp_path, capsys, edit, complaint):
    config = write_tier(tmp_path)
    write_curves(tmp_path, seeds=1)
    path = tmp_path / "curves" / "base_sd35m-seed0.npz"
    np.savez(path, **{**dict(np.load(path)), **edit})
    options = ["--config", f"{config.results}/config.yaml", "--claims", str(ROOT / "config" / "claims.yaml")]
    assert main(["claims", "--own", *options]) == 2
    error = capsys.readouterr().err
    assert complaint in error
    assert error.count("\n") == 1


def test_every_verdict_names_runs_seeds_and_configurations(verdicts):
    assert verdicts["pro_equal_calls"].runs["progrpo_sd35m"] == {
        "seeds": list(range(8)),
        "configs": ["hash-of-progrpo_sd35m"],
    }
    assert verdicts["pro_equal_calls"].seconds == pytest.approx(8 * 100 * (0.792 + 1.104))


@pytest.mark.parametrize(
    ("rule", "interval", "p", "expected"),
    [
        ({"kind": "superiority", "relevant": 0.1}, (0.01, 0.3), 0.001, "supported"),
        ({"kind": "superiority", "relevant": 0.1}, (0.01, 0.3), 0.04, "inconclusive"),  # Holm
        ({"kind": "superiority", "relevant": 0.1}, (-0.2, 0.09), 0.3, "not supported"),
        ({"kind": "superiority", "relevant": 0.1}, (-0.2, 0.2), 0.3, "inconclusive"),
        ({"kind": "superiority", "relevant": 0.1}, (-0.01, 0.3), 0.02, "inconclusive"),  # on these prompts alone
        ({"kind": "non_inferiority", "margin": 0.2}, (-0.21, 0.1), 0.02, "inconclusive"),
        ({"kind": "non_inferiority", "margin": 0.2}, (-0.15, 0.1), 0.01, "supported"),
        ({"kind": "non_inferiority", "margin": 0.2}, (-0.25, 0.1), 0.06, "inconclusive"),
        ({"kind": "non_inferiority", "margin": 0.2}, (-0.5, -0.21), 0.9, "not supported"),
        ({"kind": "equivalence", "margin": 0.2}, (-0.1, 0.19), None, "supported"),
        ({"kind": "equivalence", "margin": 0.2}, (-0.1, 0.21), None, "inconclusive"),
        ({"kind": "equivalence", "margin": 0.2}, (0.21, 0.4), None, "not supported"),
        ({"kind": "at_least", "threshold": 0.6}, (0.49, 0.59), None, "not supported"),
        ({"kind": "at_most", "threshold": 0.05}, (0.045, 0.074), None, "inconclusive"),
        ({"kind": "within", "low": 0.9, "high": 1.1}, (0.95, 1.05), None, "supported"),
    ],
)
def test_each_rule_has_three_outcomes(rule, interval, p, expected):
    found = Estimate(sum(interval) / 2, *interval, 0.0, 8, "")
    judged = CLAIMS.claims[0].model_copy(update={"rule": check(Rule, rule, "rule")})
    assert decide(judged, found, p, CLAIMS.alpha) == expected


def test_targets_are_the_curves_and_costs_of_so_many_seeds(world):
    config, _ = world
    files = targets(CLAIMS, config, 2)
    assert f"{config.results}/curves/progrpo_sd35m-seed1.npz" in files
    assert f"{config.results}/curves/progrpo_sd35m-seed1.costs.json" in files
    assert f"{config.results}/curves/base_sd35m-seed1.npz" in files
    assert not [file for file in files if "seed2" in file]
    assert len(ARMS) <= len(files)


def test_the_command_prints_a_table_and_json(world, capsys):
    config, evidence = world
    options = [
        "claims",
        "--config",
        str(evidence.source / "config.yaml"),
        "--own",
        "--claims",
        str(ROOT / "config" / "claims.yaml"),
    ]
    assert main(options) == 0
    assert "pro_equal_calls" in capsys.readouterr().out
    assert main([*options, "--json"]) == 0
    judged = {v["id"]: v for v in json.loads(capsys.readouterr().out)["verdicts"]}
    assert judged["pro_equal_calls"]["verdict"] == "supported"
    assert judged["pro_equal_calls"]["claim"]["rule"]["kind"] == "superiority"
