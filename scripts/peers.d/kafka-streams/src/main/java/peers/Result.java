package peers;

import com.fasterxml.jackson.annotation.JsonInclude;

/** What goes out; {@code probability} is left out without a model. */
@JsonInclude(JsonInclude.Include.NON_NULL)
public class Result {
  public String event_id;
  public String card;
  public long count_1h;
  public double sum_1h;
  public Float probability;
}
