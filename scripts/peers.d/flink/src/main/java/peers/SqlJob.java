package peers;

import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.table.api.bridge.java.StreamTableEnvironment;

/**
 * The small job as SQL: an OVER window in event time, JSON in and out.
 *
 * <p>A range includes both of its ends, so it is one millisecond shorter than an hour.
 */
public final class SqlJob {

  private static final String EVENTS =
      """
      CREATE TABLE events (
        event_id STRING,
        event_time BIGINT,
        amount DOUBLE,
        card STRING,
        ts AS TO_TIMESTAMP_LTZ(event_time, 3),
        WATERMARK FOR ts AS ts
      ) WITH (
        'connector' = 'kafka',
        'topic' = '%s',
        'properties.bootstrap.servers' = '%s',
        'properties.group.id' = '%s',
        'scan.startup.mode' = 'earliest-offset',
        'format' = 'json'
      )
      """;

  private static final String RESULTS =
      """
      CREATE TABLE results (
        event_id STRING,
        card STRING,
        count_1h BIGINT,
        sum_1h DOUBLE%s
      ) WITH (
        'connector' = 'kafka',
        'topic' = '%s',
        'properties.bootstrap.servers' = '%s',
        'properties.transaction.timeout.ms' = '600000',
        'key.format' = 'raw',
        'key.fields' = 'card',
        'value.format' = 'json',
        'sink.delivery-guarantee' = '%s',
        'sink.transactional-id-prefix' = '%s'
      )
      """;

  private static final String HOUR =
      """
      SELECT event_id, card, amount,
        COUNT(*) OVER card_hour AS count_1h,
        SUM(amount) OVER card_hour AS sum_1h
      FROM events
      WINDOW card_hour AS (
        PARTITION BY card
        ORDER BY ts
        RANGE BETWEEN INTERVAL '59:59.999' MINUTE TO SECOND(3) PRECEDING AND CURRENT ROW
      )
      """;

  private SqlJob() {}

  public static void main(String[] arguments) {
    Options options = Options.of(arguments);
    StreamExecutionEnvironment environment = Settings.environment(options);
    StreamTableEnvironment tables = StreamTableEnvironment.create(environment);
    String bootstrap = options.get("bootstrap");
    String group = options.get("group");
    String guarantee = options.exactlyOnce() ? "exactly-once" : "at-least-once";
    boolean scored = options.model() != null;
    tables.executeSql(EVENTS.formatted(options.get("input"), bootstrap, group));
    tables.executeSql(
        RESULTS.formatted(
            scored ? ", probability DOUBLE" : "", options.get("output"), bootstrap, guarantee, group));
    String select = "SELECT event_id, card, count_1h, sum_1h FROM (" + HOUR + ")";
    if (scored) {
      tables.createTemporarySystemFunction("score", new ScoreFunction(options.model()));
      select =
          "SELECT event_id, card, count_1h, sum_1h, score(amount, CAST(count_1h AS DOUBLE), sum_1h) FROM ("
              + HOUR
              + ")";
    }
    tables.executeSql("INSERT INTO results " + select);
  }
}
