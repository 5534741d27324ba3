package peers;

import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;

/** Count and sum of a card's hour, the time of its oldest and of its newest event, and which event that is. */
public record Hour(long count, double sum, long oldest, long newest, double amount, String eventId) {

  private static final int FIXED_BYTES = 5 * Long.BYTES;

  static final Hour NONE = new Hour(0, 0.0, Long.MAX_VALUE, 0, 0.0, "");

  static Serde<Hour> serde() {
    return Serdes.serdeFrom((topic, hour) -> hour == null ? null : hour.bytes(), (topic, bytes) -> of(bytes));
  }

  private byte[] bytes() {
    byte[] id = eventId.getBytes(StandardCharsets.UTF_8);
    ByteBuffer buffer = ByteBuffer.allocate(FIXED_BYTES + id.length);
    return buffer.putLong(count).putDouble(sum).putLong(oldest).putLong(newest).putDouble(amount).put(id).array();
  }

  private static Hour of(byte[] bytes) {
    if (bytes == null) {
      return null;
    }
    ByteBuffer buffer = ByteBuffer.wrap(bytes);
    return new Hour(
        buffer.getLong(),
        buffer.getDouble(),
        buffer.getLong(),
        buffer.getLong(),
        buffer.getDouble(),
        new String(bytes, FIXED_BYTES, bytes.length - FIXED_BYTES, StandardCharsets.UTF_8));
  }

  Hour plus(Event event) {
    return new Hour(
        count + 1, sum + event.amount, Math.min(oldest, event.event_time), event.event_time, event.amount, event.event_id);
  }

  Result result(String card) {
    Result result = new Result();
    result.event_id = eventId;
    result.card = card;
    result.count_1h = count;
    result.sum_1h = sum;
    return result;
  }
}
