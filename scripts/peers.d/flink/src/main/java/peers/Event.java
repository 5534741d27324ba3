package peers;

import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.annotation.JsonIgnoreProperties;

/** What comes in, of which the job needs this much; a POJO, so that Flink serializes it by itself. */
@JsonIgnoreProperties(ignoreUnknown = true)
public class Event {
  public String event_id;
  public long event_time;
  public double amount;
  public String card;
}
