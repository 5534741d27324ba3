package peers;

import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.serialization.SerializationSchema;
import org.apache.flink.connector.kafka.sink.KafkaRecordSerializationSchema;
import org.apache.flink.connector.kafka.sink.KafkaSink;
import org.apache.flink.connector.kafka.source.KafkaSource;
import org.apache.flink.connector.kafka.source.enumerator.initializer.OffsetsInitializer;
import org.apache.flink.formats.json.JsonDeserializationSchema;
import org.apache.flink.formats.json.JsonSerializationSchema;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;

/** The small job written by hand: a KeyedProcessFunction between the Kafka source and sink, JSON in and out. */
public final class ProcessJob {

  private ProcessJob() {}

  public static void main(String[] arguments) throws Exception {
    Options options = Options.of(arguments);
    StreamExecutionEnvironment environment = Settings.environment(options);
    KafkaSource<Event> source =
        KafkaSource.<Event>builder()
            .setBootstrapServers(options.get("bootstrap"))
            .setTopics(options.get("input"))
            .setGroupId(options.get("group"))
            .setStartingOffsets(OffsetsInitializer.earliest())
            .setValueOnlyDeserializer(new JsonDeserializationSchema<>(Event.class))
            .build();
    SerializationSchema<Result> keys = result -> result.card.getBytes();
    KafkaSink<Result> sink =
        KafkaSink.<Result>builder()
            .setBootstrapServers(options.get("bootstrap"))
            .setKafkaProducerConfig(Settings.producer())
            .setDeliveryGuarantee(Settings.guarantee(options))
            .setTransactionalIdPrefix(options.get("group"))
            .setRecordSerializer(
                KafkaRecordSerializationSchema.<Result>builder()
                    .setTopic(options.get("output"))
                    .setKeySerializationSchema(keys)
                    .setValueSerializationSchema(new JsonSerializationSchema<>())
                    .build())
            .build();
    environment
        // Every card's events are in order, and nothing waits for a watermark.
        .fromSource(source, WatermarkStrategy.noWatermarks(), "events")
        .keyBy(event -> event.card)
        .process(new HourFunction(options.model()))
        .sinkTo(sink);
    environment.execute("small job");
  }
}
