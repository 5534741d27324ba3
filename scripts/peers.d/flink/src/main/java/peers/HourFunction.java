package peers;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.state.MapState;
import org.apache.flink.api.common.state.MapStateDescriptor;
import org.apache.flink.api.common.state.ValueState;
import org.apache.flink.api.common.state.ValueStateDescriptor;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.streaming.api.functions.KeyedProcessFunction;
import org.apache.flink.util.Collector;

/**
 * Count and sum of a card's last hour, kept up to date: an event adds its amount, and those that have left are taken
 * off.
 *
 * <p>Amounts lie in a map by time, which RocksDB keeps in order, so that what has left is at its beginning. Nothing is
 * recomputed: an event costs its own insertion and that of leaving, however many there are in the hour. A card's
 * events come in order of time, since its partition has them so. A card that nothing is heard of is not cleaned away.
 */
final class HourFunction extends KeyedProcessFunction<String, Event, Result> {

  private static final long WINDOW_MS = 3_600_000;

  private final String modelPath;
  private transient Model model;
  private transient MapState<Long, Double> amounts;
  private transient ValueState<Hour> hour;

  /** Count and sum of what lies in the map. */
  public static final class Hour {
    public long count;
    public double sum;
    public long oldest;
  }

  HourFunction(String modelPath) {
    this.modelPath = modelPath;
  }

  @Override
  public void open(OpenContext context) throws Exception {
    amounts = getRuntimeContext().getMapState(new MapStateDescriptor<>("amounts", Types.LONG, Types.DOUBLE));
    hour = getRuntimeContext().getState(new ValueStateDescriptor<>("hour", Types.POJO(Hour.class)));
    model = modelPath == null ? null : new Model(modelPath);
  }

  @Override
  public void processElement(Event event, Context context, Collector<Result> out) throws Exception {
    Hour now = hour.value();
    if (now == null) {
      now = new Hour();
      now.oldest = event.event_time;
    }
    if (now.oldest <= event.event_time - WINDOW_MS) {
      leave(now, event.event_time);
    }
    amounts.put(event.event_time, event.amount);
    now.count += 1;
    now.sum += event.amount;
    hour.update(now);
    Result result = new Result();
    result.event_id = event.event_id;
    result.card = event.card;
    result.count_1h = now.count;
    result.sum_1h = now.sum;
    if (model != null) {
      result.probability = model.score(event.amount, now.count, now.sum);
    }
    out.collect(result);
  }

  private void leave(Hour now, long time) throws Exception {
    List<Long> left = new ArrayList<>();
    now.oldest = time;
    for (Map.Entry<Long, Double> entry : amounts.entries()) {
      if (entry.getKey() > time - WINDOW_MS) {
        now.oldest = entry.getKey();
        break;
      }
      left.add(entry.getKey());
      now.count -= 1;
      now.sum -= entry.getValue();
    }
    for (Long key : left) {
      amounts.remove(key);
    }
  }

  @Override
  public void close() throws Exception {
    if (model != null) {
      model.close();
    }
  }
}
