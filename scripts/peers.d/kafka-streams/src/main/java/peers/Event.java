package peers;

import com.fasterxml.jackson.annotation.JsonIgnoreProperties;

/** What comes in, of which the job needs this much. */
@JsonIgnoreProperties(ignoreUnknown = true)
public class Event {
  public String event_id;
  public long event_time;
  public double amount;
  public String card;
}
