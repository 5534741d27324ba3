"""`tidegate models gate`: whether a challenger may take the champion's place."""

from pathlib import Path

import click
import msgspec

from engine.commands.options import config_option, config_or_default, json_option, print_json
from engine.errors import ConfigError

# As models.promotion.CHECKS, which needs libraries that --help does not wait for.
CHECKS = ("auc", "average_precision", "recall", "card_precision", "cost", "parity", "latency")


@click.command()
@click.argument("challenger", metavar="CHALLENGER")
@config_option
@click.option(
    "--features", "table", required=True, type=click.Path(path_type=Path), help="A table with labels, by backfill."
)
@click.option("--against", help="The model to be as good as; models.champion by default.")
@click.option("--report", type=click.Path(path_type=Path), help="Folder for report.md and its pictures.")
@click.option(
    "--margin", type=click.FloatRange(0, 1), default=0.0, show_default=True, help="How much lower a rate may be."
)
@click.option(
    "--cost-margin", type=click.FloatRange(0), default=0.0, show_default=True, help="How much higher the cost, a share."
)
@click.option(
    "--cost-alert", type=click.FloatRange(0), default=5.0, show_default=True, help="Of an event not approved."
)
@click.option("--cost-fraud", type=click.FloatRange(0), help="Of a missed fraud, where there is no event.amount.")
@click.option(
    "--tolerance", type=click.FloatRange(0, 1), default=1e-5, show_default=True, help="Greatest |dp| of the import."
)
@click.option(
    "--slower-max", type=click.FloatRange(0, min_open=True), default=2.0, show_default=True, help="Times the champion."
)
@click.option(
    "--frauds-min", type=click.IntRange(1), default=30, show_default=True, help="Cards with a fraud that it takes."
)
@click.option("--card-column", default="card.key", show_default=True, help="Column that says which card it was.")
@click.option("--without", multiple=True, type=click.Choice(CHECKS), help="Do not ask for this check; repeatable.")
@json_option
def gate(
    challenger: str,
    config_file: str | None,
    table: Path,
    against: str | None,
    report: Path | None,
    margin: float,
    cost_margin: float,
    cost_alert: float,
    cost_fraud: float | None,
    tolerance: float,
    slower_max: float,
    frauds_min: int,
    card_column: str,
    without: tuple[str, ...],
    as_json: bool,
) -> None:
    """Judge a model beside the champion on labelled events; exit 1 where it is worse, or a check cannot be made.

    CHALLENGER is name/version or name@alias. Worse counts only beyond noise. Nothing is promoted by this.
    """
    try:
        from models.contest import hold
        from models.latency import median_seconds
        from models.promotion import Terms, judge
        from models.promotion_report import lines, write_report
    except ModuleNotFoundError as error:
        raise ConfigError(f"there is no {error.name}: pip install 'tidegate[train]'") from error
    from engine.assemble import model_store
    from models.errors import ModelError

    config = config_or_default(config_file)
    terms = Terms(
        challenge=config.policy.challenge,
        margin=margin,
        cost_margin=cost_margin,
        cost_alert=cost_alert,
        cost_fraud=cost_fraud,
        tolerance=tolerance,
        slower_max=slower_max,
        frauds_min=frauds_min,
        without=without,
    )
    champion, definitions = against or config.models.champion, config.feature_spec().features
    try:
        contest = hold(model_store(config), challenger, champion, definitions, table, card_column)
        sides = (contest.challenger, contest.champion)
        seconds = None
        if "latency" not in without:
            seconds = median_seconds((sides[0].model, sides[1].model), (sides[0].inputs, sides[1].inputs))
    except ModelError as error:
        raise ConfigError(str(error)) from error
    result = judge(contest, terms, seconds)
    if report is not None:
        try:
            write_report(report, result, contest)
        except OSError as error:
            raise ConfigError(f"--report {report} cannot be written: {error.strerror}") from error
    if as_json:
        print_json(msgspec.to_builtins(result))
    else:
        click.echo("\n".join(lines(result)))
    if not result.passed:
        click.get_current_context().exit(1)
