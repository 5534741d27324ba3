package peers;

import java.time.Duration;
import java.util.Properties;
import org.apache.flink.configuration.CheckpointingOptions;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.configuration.MemorySize;
import org.apache.flink.configuration.PipelineOptions;
import org.apache.flink.configuration.StateBackendOptions;
import org.apache.flink.configuration.TaskManagerOptions;
import org.apache.flink.connector.base.DeliveryGuarantee;
import org.apache.flink.core.execution.CheckpointingMode;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;

/** A cluster in this JVM, and what Flink's documentation recommends for RocksDB and for speed. */
final class Settings {

  /** Results of exactly once can be read after a checkpoint only, so they come more often then. */
  private static final Duration CHECKPOINTS = Duration.ofSeconds(10);

  private static final Duration CHECKPOINTS_EXACTLY_ONCE = Duration.ofSeconds(1);

  private Settings() {}

  static StreamExecutionEnvironment environment(Options options) {
    Configuration configuration = new Configuration();
    configuration.set(StateBackendOptions.STATE_BACKEND, "rocksdb");
    configuration.set(CheckpointingOptions.INCREMENTAL_CHECKPOINTS, true);
    configuration.set(CheckpointingOptions.CHECKPOINTS_DIRECTORY, "file://" + options.get("state") + "/checkpoints");
    configuration.set(PipelineOptions.OBJECT_REUSE, true);
    // Memtables and block cache of RocksDB: the default of a task manager is 512 MiB.
    configuration.set(TaskManagerOptions.MANAGED_MEMORY_SIZE, MemorySize.ofMebiBytes(1024));
    StreamExecutionEnvironment environment =
        StreamExecutionEnvironment.createLocalEnvironment(Integer.parseInt(options.get("parallelism")), configuration);
    boolean exactlyOnce = options.exactlyOnce();
    environment.enableCheckpointing(
        (exactlyOnce ? CHECKPOINTS_EXACTLY_ONCE : CHECKPOINTS).toMillis(),
        exactlyOnce ? CheckpointingMode.EXACTLY_ONCE : CheckpointingMode.AT_LEAST_ONCE);
    return environment;
  }

  static DeliveryGuarantee guarantee(Options options) {
    return options.exactlyOnce() ? DeliveryGuarantee.EXACTLY_ONCE : DeliveryGuarantee.AT_LEAST_ONCE;
  }

  /** The broker allows transactions of 15 minutes, the sink asks for an hour. */
  static Properties producer() {
    Properties properties = new Properties();
    properties.setProperty("transaction.timeout.ms", "600000");
    return properties;
  }
}
