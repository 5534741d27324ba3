package peers;

import java.time.Duration;
import java.util.Properties;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.kstream.SlidingWindows;

/**
 * The small job in the DSL: an aggregation over SlidingWindows, of which the window that ends with the event is its
 * result.
 *
 * <p>Windows include both of their ends, so the difference is one millisecond less than an hour. The record cache is
 * off, since with it there is no result before the next commit, and none for an event that another one follows.
 */
public final class SlidingWindowsJob {

  private SlidingWindowsJob() {}

  public static void main(String[] arguments) throws InterruptedException {
    Options options = Options.of(arguments);
    Properties properties = App.properties(options);
    properties.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, 0);
    Scorer scorer = new Scorer(options.model());
    StreamsBuilder builder = new StreamsBuilder();
    builder.stream(options.get("input"), Consumed.with(Serdes.String(), Json.serde(Event.class)))
        .groupByKey(Grouped.with(Serdes.String(), Json.serde(Event.class)))
        .windowedBy(SlidingWindows.ofTimeDifferenceWithNoGrace(Duration.ofHours(1).minusMillis(1)))
        .aggregate(
            () -> Hour.NONE,
            (card, event, hour) -> hour.plus(event),
            Materialized.with(Serdes.String(), Hour.serde()))
        .toStream()
        .filter((window, hour) -> hour != null && window.window().end() == hour.newest())
        .map((window, hour) -> KeyValue.pair(window.key(), scorer.scored(hour.result(window.key()), hour.amount())))
        .to(options.get("output"), Produced.with(Serdes.String(), Json.serde(Result.class)));
    App.run(builder.build(), properties);
  }
}
