package peers;

import org.apache.kafka.streams.processor.api.FixedKeyProcessor;
import org.apache.kafka.streams.processor.api.FixedKeyProcessorContext;
import org.apache.kafka.streams.processor.api.FixedKeyRecord;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.WindowStore;
import org.apache.kafka.streams.state.WindowStoreIterator;

/**
 * Count and sum of a card's last hour, kept up to date: an event adds its amount, and those that have left are taken
 * off.
 *
 * <p>An event costs its own insertion and that of leaving, however many there are in the hour. A card's events come in
 * order of time, since its partition has them so. The window store drops what is past its retention by itself.
 */
final class HourProcessor implements FixedKeyProcessor<String, Event, Result> {

  private static final long WINDOW_MS = WindowStoreJob.WINDOW.toMillis();

  private final Scorer scorer;
  private FixedKeyProcessorContext<String, Result> context;
  private WindowStore<String, Double> amounts;
  private KeyValueStore<String, Hour> hours;

  HourProcessor(Scorer scorer) {
    this.scorer = scorer;
  }

  @Override
  public void init(FixedKeyProcessorContext<String, Result> given) {
    context = given;
    amounts = given.getStateStore(WindowStoreJob.AMOUNTS);
    hours = given.getStateStore(WindowStoreJob.HOURS);
  }

  @Override
  public void process(FixedKeyRecord<String, Event> record) {
    String card = record.key();
    Event event = record.value();
    Hour hour = hours.get(card);
    if (hour == null) {
      hour = Hour.NONE;
    } else if (hour.oldest() <= event.event_time - WINDOW_MS) {
      hour = withoutOld(card, hour, event.event_time);
    }
    amounts.put(card, event.amount, event.event_time);
    hour = hour.plus(event);
    hours.put(card, hour);
    context.forward(record.withValue(scorer.scored(hour.result(card), event.amount)));
  }

  private Hour withoutOld(String card, Hour hour, long time) {
    long count = hour.count();
    double sum = hour.sum();
    long oldest = Long.MAX_VALUE;
    try (WindowStoreIterator<Double> entries = amounts.fetch(card, hour.oldest(), time)) {
      while (entries.hasNext()) {
        var entry = entries.next();
        if (entry.key > time - WINDOW_MS) {
          oldest = entry.key;
          break;
        }
        count -= 1;
        sum -= entry.value;
      }
    }
    return new Hour(count, sum, oldest, hour.newest(), hour.amount(), hour.eventId());
  }
}
