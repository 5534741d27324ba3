package peers;

import java.time.Duration;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.state.Stores;

/** The small job in the Processor API: a processor with a window store of amounts and a store of hours, in RocksDB. */
public final class WindowStoreJob {

  static final String AMOUNTS = "amounts";
  static final String HOURS = "hours";
  static final Duration WINDOW = Duration.ofHours(1);

  private WindowStoreJob() {}

  public static void main(String[] arguments) throws InterruptedException {
    Options options = Options.of(arguments);
    StreamsBuilder builder = new StreamsBuilder();
    builder.addStateStore(
        Stores.windowStoreBuilder(
            Stores.persistentWindowStore(AMOUNTS, WINDOW.multipliedBy(2), WINDOW, false),
            Serdes.String(),
            Serdes.Double()));
    builder.addStateStore(
        Stores.keyValueStoreBuilder(Stores.persistentKeyValueStore(HOURS), Serdes.String(), Hour.serde())
            .withCachingEnabled());
    builder.stream(options.get("input"), Consumed.with(Serdes.String(), Json.serde(Event.class)))
        .processValues(() -> new HourProcessor(new Scorer(options.model())), AMOUNTS, HOURS)
        .to(options.get("output"), Produced.with(Serdes.String(), Json.serde(Result.class)));
    App.run(builder.build(), App.properties(options));
  }
}
