"""Configuration: errors name the key, the value and what is allowed; the environment overrides; secrets stay out."""

from pathlib import Path

import pytest

from engine.config import Config, client_settings, default_profile, find_config, load_config, parse_config
from engine.errors import ConfigError
from engine.mapping import shipped_mappings

CARD = """
[entities.card]
windows = ["1h"]
aggregates = ["count"]
"""


def parse(text: str, environment: dict[str, str] | None = None, folder: Path = Path("/etc/tidegate")) -> Config:
    return parse_config(CARD + text, folder, environment or {})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[kafka]\nbootstap = 1", ["kafka: ", "unknown field `bootstap`", "allowed: bootstrap, input"]),
        ("folder = '/tmp'", ["unknown field `folder`"]),
        ("[kafka]\ncommit_interval_ms = 'a'", ["kafka.commit_interval_ms", "'a'", "`int`"]),
        ("[kafka]\ncommit_interval_ms = 0", ["kafka", "commit_interval_ms", "0", "at least 1"]),
        ("[kafka]\ncommit_interval_ms = 10001", ["kafka", "commit_interval_ms", "10001", "at most 10000"]),
        ("[kafka]\ndelivery = 'maybe'", ["kafka.delivery", "'maybe'", "allowed: exactly_once, at_least_once"]),
        (
            "[kafka.client]\n'request.required.acks' = 0",
            ["client", "'request.required.acks' is set by Tidegate itself"],
        ),
        ("[kafka.client]\n'linger.ms' = 2.5", ["kafka.client.linger.ms 2.5"]),
        ("[kafka.client]\nacks = 0", ["kafka", "client", "'acks' is set by Tidegate itself"]),
        (
            "[mapping]\nevent_time = { field = 't', unit = 'us' }",
            ["mapping.event_time.unit", "'us'", "allowed: ms, s, iso8601"],
        ),
        ("[mapping]\nlate_after = '5'", ["mapping", "late_after", "'5'", "ms, s, m, h or d"]),
        ("[mapping]\nevent_bytes_max = 0", ["mapping", "event_bytes_max", "0", "at least 1"]),
        ("[mapping]\npartition_key = 'ip'", ["mapping.partition_key", "'ip'", "card"]),
        ("[mapping]\nbase = 'nowhere'", ["mapping.base", "'nowhere'", "iso8583, native, sparkov"]),
        ("[mapping]\nbase = 3", ["mapping.base", "3", "`str"]),
        ("mapping = 3", ["unknown field `mapping`"]),
        ("[state]\nring_events_max = 100", ["state", "ring_events_max", "100", "power of two"]),
        ("[state]\ndedupe_horizon = 'long'", ["state", "dedupe_horizon", "'long'", "ms, s, m, h or d"]),
        ("[state]\nflush_interval_s = 0.0", ["state", "flush_interval_s", "0.0", "positive"]),
        ("[state.checkpoints]\ninterval_s = 0.0", ["state.checkpoints", "interval_s", "0.0", "positive"]),
        ("[state.checkpoints]\nkeep = 0", ["state.checkpoints", "keep", "0", "at least 1"]),
        ("[state.checkpoints]\nkept = 1", ["state.checkpoints", "`kept`", "allowed: dir, interval_s, keep"]),
        ("[policy]\nchallenge = 900\nreview = 800", ["policy", "900, 800, 950", "ascend"]),
        ("[observe]\nlisten = '9464'", ["observe", "listen", "'9464'", "HOST:PORT"]),
        ("[observe]\nlisten = 'localhost:65536'", ["observe", "listen", "'localhost:65536'", "0..65535"]),
        ("[observe]\nlog_format = 'xml'", ["observe.log_format", "'xml'", "allowed: json, console"]),
        ("[observe]\nlog_level = 'loud'", ["observe.log_level", "'loud'", "debug, info, warning, error"]),
        ("[event]\nfeatures = ['size']", ["event.features", "'size'", "amount, hour_of_day"]),
        ("[entities.ip]\nwindows = ['1y']\naggregates = ['count']", ["entities.ip.windows", "'1y'", "as in 90s"]),
        ("[entities.ip]\nwindows = ['1h']\naggregates = ['sum']", ["entities.ip.aggregates", "'sum'", "sum.amount"]),
        ("[entities.ip]\nwindows = ['1h']", ["entities.ip: ", "missing required field `aggregates`"]),
        ("[entities.ip]\nwindow = ['1h']", ["entities.ip: ", "`window`", "allowed: windows, aggregates, key"]),
        ("[entities.ip]\nwindows = ['1h', 2]\naggregates = ['count']", ["entities.ip.windows.1 2", "`str`"]),
        ("[entities]\nip = 3", ["entities.ip 3"]),
        ("[entities.IP]\nwindows = ['1h']\naggregates = ['count']", ["entities", "'IP'", "lower-case"]),
        ("[entities.'a.b']\nwindows = ['1h']\naggregates = ['count']", ["entities", "'a.b'", "lower-case"]),
        ("[state]\nttl = 'for ever'", ["state", "ttl", "'for ever'", "ms, s, m, h or d"]),
        ("[state]\nttl = '168h'", ["state.ttl", "'168h'", "longest window and mapping.horizon_past", "608400000 ms"]),
        ("[mapping]\nhorizon_past = '10001d'", ["mapping", "horizon_past", "'10001d'", "at most 10000d"]),
        ("[entities.ip]\nwindows = ['90000000h']\naggregates = ['count']", ["entities.ip.windows", "at most 10000d"]),
        ("[mapping]\nnumbers = 'lat'", ["mapping.numbers 'lat'", "`array`"]),
        ("[mapping]\nnumbers = ['amount']", ["mapping", "numbers", "'amount'", "none of amount, hour_of_day"]),
        ("[mapping]\nnumbers = ['a.b']", ["mapping", "numbers", "'a.b'", "without a dot"]),
        ("[mapping]\nnumbers = ['card']", ["mapping.numbers", "'card' is an entity, whose key is text"]),
        ("[mapping]\nlocation = { latitude = 'lat' }", ["mapping.location", "latitude, longitude: 'lat', ''", "two"]),
        ("[mapping]\nlocation = { latitude = 'a', longitude = 'a' }", ["mapping.location", "'a', 'a'", "two fields"]),
        ("[mapping]\nlocation = { lat = 'a' }", ["mapping.location", "`lat`", "allowed: latitude, longitude"]),
        ("[predicates]\nsmall = 2", ["predicates.small 2", "`str`"]),
        ("[predicates]\nsmall = 'amount < x'", ["predicates.small: 'amount < x': column 10: ", "'x' is a field"]),
        ("[predicates]\nSmall = 'amount < 2'", ["predicates: 'Small'", "lower-case"]),
        ("[predicates]\nprior = 'amount < 2'", ["predicates: 'prior'", "none of prior, amount"]),
        ("[predicates]\nkm = 'km < 2'\n[mapping]\nnumbers = ['km']", ["predicates: 'km' is a number field already"]),
        ("[predicates]\n" + "\n".join(f"p{n} = 'amount < {n}'" for n in range(33)), ["predicates: 33", "at most 32"]),
        (
            "[entities.ip]\nwindows = ['1h']\naggregates = ['count.small']",
            ["entities.ip.aggregates", "'count.small': 'small' is not a predicate; predicates: none is defined"],
        ),
        (
            "[entities.ip]\nwindows = ['1h']\naggregates = ['geo_speed']",
            ["entities.ip.aggregates", "'geo_speed' needs mapping.location"],
        ),
        ("[event]\none_hot = { entry_mode = [] }", ["event", "one_hot.entry_mode: []", "must name categories"]),
        ("[event]\none_hot = { entry_mode = [''] }", ["event", "one_hot.entry_mode: ['']", "none of them empty"]),
        ("[event]\none_hot = { amount = ['1'] }", ["event.one_hot.amount", "is a number"]),
        ("[event]\nhashed = { mcc = 1 }", ["event.hashed.mcc", "1 buckets: must be 2 to"]),
        ("[event]\nhashed = { mcc = '64' }", ["event.hashed.mcc '64'", "`int`"]),
        ("[entities.event]\nwindows = ['1h']\naggregates = ['count']", ["entities", "not 'event'"]),
        ("[kafka.topics]\nalerts = 'decisions'", ["kafka.topics", "'decisions' is named twice"]),
        ("[kafka.topics]\ntelemetry = 'progress'", ["kafka.topics", "'progress' is named twice"]),
        ("[telemetry]\nsample_rate = 1.01", ["telemetry", "sample_rate", "1.01", "within 0 to 1"]),
        ("[telemetry]\nsample_rate = nan", ["telemetry", "sample_rate", "nan", "within 0 to 1"]),
        ("[telemetry]\ninterval_s = 0.0", ["telemetry", "interval_s", "0.0", "positive"]),
        ("[telemetry]\nrate = 1.0", ["telemetry", "`rate`", "allowed: enabled, sample_rate, interval_s"]),
        ("[kafka", ["not valid TOML"]),
    ],
)
def test_an_error_names_key_value_and_what_is_allowed(text: str, said: list[str]) -> None:
    with pytest.raises(ConfigError) as raised:
        parse(text)
    assert [part for part in said if part not in str(raised.value)] == []


def test_without_an_entity_there_is_nothing_to_do() -> None:
    with pytest.raises(ConfigError, match="entities"):
        parse_config("[entities]", Path(), {})


def test_a_configuration_that_defines_no_features_means_those_of_the_shipped_model() -> None:
    shipped = parse_config(default_profile(), Path(), {}).feature_spec()
    assert parse_config("", Path(), {}).feature_spec() == shipped


def test_the_default_profile_is_valid() -> None:
    config = parse_config(default_profile(), Path(), {})
    assert [column.name for column in config.feature_spec().columns] == ["card", "device", "ip", "merchant"]


# --- environment -----------------------------------------------------------------------------------------------


def test_the_environment_overrides_any_key() -> None:
    config = parse(
        "[kafka]\nbootstrap = 'file:1'\nbatch_linger_ms = 7",
        {
            "TIDEGATE__KAFKA__BOOTSTRAP": "env:2",
            "TIDEGATE__KAFKA__COMMIT_INTERVAL_MS": "250",
            "TIDEGATE__KAFKA__TOPICS__DECISIONS": "decided",
            "TIDEGATE__ENTITIES__CARD__WINDOWS": '["5m", "1d"]',
            "TIDEGATE__MAPPING__BASE": "sparkov",
            "TIDEGATE_CONFIG": "is no key",
        },
    )
    assert (config.kafka.bootstrap, config.kafka.commit_interval_ms, config.kafka.batch_linger_ms) == ("env:2", 250, 7)
    assert config.kafka.topics.decisions == "decided"
    assert config.entities["card"].windows == ["5m", "1d"]
    assert config.mapping.event_id == "trans_num"


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("TIDEGATE__KAFKA__COMMIT_INTERVAL_MS", "soon", ["kafka.commit_interval_ms", "'soon'", "`int`"]),
        ("TIDEGATE__KAFKA__NO_SUCH_KEY", "1", ["kafka", "`no_such_key`"]),
        ("TIDEGATE__FOLDER", "/tmp", ["`folder`"]),
        (
            "TIDEGATE__ENTITIES__CARD__WINDOWS__X",
            "1",
            ["TIDEGATE__ENTITIES__CARD__WINDOWS__X", "windows is not a table"],
        ),
    ],
)
def test_an_error_in_the_environment_names_the_key(variable: str, value: str, said: list[str]) -> None:
    with pytest.raises(ConfigError) as raised:
        parse("", {variable: value})
    assert [part for part in said if part not in str(raised.value)] == []


# --- secrets ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key",
    ["sasl.password", "ssl.key.password", "ssl.key.pem", "ssl.keystore.password", "sasl.oauthbearer.client.secret"],
)
def test_a_secret_in_the_file_is_refused_and_not_repeated(key: str) -> None:
    with pytest.raises(ConfigError, match=f"kafka.client.{key}: secrets are not read") as raised:
        parse(f"[kafka.client]\n'{key}' = 'hunter2'")
    assert "hunter2" not in str(raised.value)


def test_secrets_come_from_the_environment_or_from_files(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("from a file\n")
    config = parse(
        "[kafka.client]\n'security.protocol' = 'SASL_SSL'\n"
        "[kafka.client_secret_files]\n'ssl.key.password' = 'password'",
        {"TIDEGATE__KAFKA__CLIENT__SASL_PASSWORD": "from the environment"},
        tmp_path,
    )
    assert client_settings(config) == {
        "security.protocol": "SASL_SSL",
        "sasl.password": "from the environment",
        "ssl.key.password": "from a file",
    }


@pytest.mark.parametrize("password", ["2.5", "0012", "1_000", "true", '"quoted"'])
def test_a_password_in_the_environment_is_taken_as_it_is(password: str) -> None:
    config = parse("", {"TIDEGATE__KAFKA__CLIENT__SASL_PASSWORD": password})
    assert client_settings(config)["sasl.password"] == password


def test_an_error_about_a_secret_does_not_repeat_it() -> None:
    with pytest.raises(ConfigError, match=r"kafka\.client\.sasl\.password: ") as raised:
        parse("", {"TIDEGATE__KAFKA__CLIENT": '{ "sasl.password" = 271.828 }'})
    assert "271" not in str(raised.value)


def test_a_missing_secret_file_is_named(tmp_path: Path) -> None:
    config = parse("[kafka.client_secret_files]\n'sasl.password' = 'nowhere'", folder=tmp_path)
    with pytest.raises(ConfigError, match=r"kafka.client_secret_files.sasl.password: .*nowhere does not exist"):
        client_settings(config)


# --- mappings --------------------------------------------------------------------------------------------------


def test_a_stream_in_one_currency_is_scored_in_it() -> None:
    assert parse("[mapping]\nbase = 'sparkov'").rates.base_currency == "USD"
    assert parse("[mapping]\nbase = 'sparkov'\n[rates]\nbase_currency = 'EUR'").rates.base_currency == "EUR"
    assert parse("").rates.base_currency == "EUR"


@pytest.mark.parametrize("name", shipped_mappings())
def test_every_shipped_mapping_is_valid(name: str) -> None:
    assert parse(f"[mapping]\nbase = '{name}'").mapping.base == name


def test_a_mapping_is_laid_over_its_base() -> None:
    config = parse("""
[entities.pos]
windows = ["1h"]
aggregates = ["distinct.mcc"]
[mapping]
base = "iso8583"
late_after = "10s"
amount = { field = "settled" }
[mapping.fields]
merchant = "shop"
pos = "terminal"
""")
    mapping = config.mapping
    assert mapping.event_id == "retrieval_reference_number"
    assert mapping.late_after_ms == 10_000
    assert (mapping.amount.field, mapping.amount.unit) == ("settled", "major")  # an inline table is replaced whole
    assert mapping.source("merchant") == "shop"
    assert mapping.source("device") == "card_acceptor_terminal_id"
    assert mapping.source("mcc") == "mcc"
    assert (config.entity_key("card"), config.entity_key("pos")) == ("primary_account_number", "terminal")


def test_an_entity_may_name_its_key_by_our_name_or_the_inputs() -> None:
    config = parse("""
[entities.seller]
key = "merchant"
windows = ["1h"]
aggregates = ["count"]
[entities.mail]
key = "customer_email"
windows = ["1h"]
aggregates = ["count"]
[mapping.fields]
merchant = "shop"
""")
    assert (config.entity_key("seller"), config.entity_key("mail")) == ("shop", "customer_email")


def test_a_base_may_be_a_file_beside_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "house.toml").write_text('event_id = "tx"\n[fields]\ncard = "pan"')
    config = parse("[mapping]\nbase = 'house.toml'", folder=tmp_path)
    assert (config.mapping.event_id, config.entity_key("card")) == ("tx", "pan")


def test_a_base_that_does_not_parse_is_named(tmp_path: Path) -> None:
    (tmp_path / "house.toml").write_text("event_id =")
    with pytest.raises(ConfigError, match=r"mapping.base: house.toml is not valid TOML"):
        parse("[mapping]\nbase = 'house.toml'", folder=tmp_path)


def test_a_base_says_which_fields_are_numbers_and_what_is_written_over_it_counts(tmp_path: Path) -> None:
    shipped = parse("[mapping]\nbase = 'sparkov'").mapping
    assert shipped.number_fields == {"lat", "long", "city_pop", "merch_lat", "merch_long"}
    assert shipped.located
    laid_over = parse("[mapping]\nbase = 'sparkov'\nnumbers = ['zip']\nlocation = {}").mapping
    assert laid_over.number_fields == {"zip"}
    assert not laid_over.located


# --- definitions -----------------------------------------------------------------------------------------------

DEFINITIONS = """
[predicates]
small = "amount<2.00"
remote = 'mode in ("ecom", "moto") and (shop == "x" or km > 1e2)'
[event]
features = ["small", "km"]
one_hot = { mode = ["chip", "ecom"] }
hashed = { shop = 64 }
[entities.shop]
key = "merchant"
windows = ["2h"]
aggregates = ["count.remote", "geo_speed", "last.km"]
[mapping]
numbers = ["km"]
location = { latitude = "lat", longitude = "long" }
[mapping.fields]
km = "distance"
lat = "y"
long = "x"
merchant = "m"
mode = "entry_mode"
"""


def test_field_types_are_what_definitions_may_name() -> None:
    types = parse(DEFINITIONS).field_types()
    assert types.predicates == {
        "small": "amount < 2",
        "remote": "mode in ('ecom', 'moto') and (shop == 'x' or km > 100)",
    }
    assert (types.numbers, types.located) == ({"km", "lat", "long"}, True)


def test_definitions_become_features() -> None:
    spec = parse(DEFINITIONS).feature_spec()
    assert spec.names[:4] == ("card.count.1h", "shop.count.2h.remote", "shop.geo_speed", "shop.last.km")
    assert spec.names[4:] == ("event.small", "event.km", "event.mode.chip", "event.mode.ecom", "event.shop.hash")
    assert [column.name for column in spec.columns] == ["card", "shop", "km", "location"]
    assert spec.predicates == ("remote", "small")


def test_a_column_knows_the_fields_that_it_is_made_of() -> None:
    config = parse(DEFINITIONS)
    made_of = {column.name: config.sources(column) for column in config.feature_spec().columns}
    assert made_of == {"card": ("card",), "shop": ("m",), "km": ("distance",), "location": ("y", "x")}
    assert [config.source(name) for name in config.predicate("remote").texts] == ["entry_mode", "m"]


def test_a_predicate_may_come_from_the_environment() -> None:
    environment = {
        "TIDEGATE__PREDICATES__SMALL": "amount < 2.00",
        "TIDEGATE__ENTITIES__CARD__AGGREGATES": '["count.small"]',
        "TIDEGATE__MAPPING__NUMBERS": '["km"]',
        "TIDEGATE__EVENT__ONE_HOT__MODE": '["chip"]',
    }
    assert parse("", environment).feature_spec().names == ("card.count.1h.small", "event.mode.chip")


def test_an_entity_is_kept_as_long_as_it_can_matter_or_as_configured() -> None:
    day_ms = 86_400_000
    longer = "[entities.ip]\nwindows = ['1h', '30d']\naggregates = ['count']\n"
    assert parse("").ttl_ms == 7 * day_ms + 3_600_000
    assert parse(longer).ttl_ms == 37 * day_ms
    assert parse(f"{longer}[state]\nttl = '37d'").ttl_ms == 37 * day_ms
    assert parse("[state]\nttl = '10000d'").ttl_ms == 10_000 * day_ms


# --- files -----------------------------------------------------------------------------------------------------


def test_relative_paths_resolve_against_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "tidegate.toml").write_text(CARD)
    monkeypatch.chdir(tmp_path)
    config = load_config(Path("etc/tidegate.toml"), {})
    assert config.path("rates.csv") == tmp_path / "etc" / "rates.csv"
    assert config.path("/var/rates.csv") == Path("/var/rates.csv")
    monkeypatch.chdir("/")
    assert config.path(config.state.dir) == tmp_path / "etc" / "state"


def test_the_flag_goes_before_the_environment_before_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_config(None, {}) is None
    for name in ("tidegate.toml", "environment.toml", "flag.toml"):
        (tmp_path / name).write_text(CARD)
    environment = {"TIDEGATE_CONFIG": "environment.toml"}
    assert find_config("flag.toml", environment) == Path("flag.toml")
    assert find_config(None, environment) == Path("environment.toml")
    assert find_config(None, {}) == Path("tidegate.toml")


def test_a_file_that_is_not_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "tidegate.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"tidegate\.toml cannot be read: .*utf-8"):
        load_config(tmp_path / "tidegate.toml", {})


@pytest.mark.parametrize(("flag", "environment"), [("no.toml", {}), (None, {"TIDEGATE_CONFIG": "no.toml"})])
def test_a_named_file_that_is_missing_is_an_error(flag: str | None, environment: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"'no\.toml' does not exist"):
        find_config(flag, environment)
