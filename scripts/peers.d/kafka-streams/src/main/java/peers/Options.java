package peers;

import java.util.HashMap;
import java.util.Map;

/** What every job is told on its command line: {@code --name value} pairs. */
record Options(Map<String, String> values) {

  static Options of(String[] arguments) {
    Map<String, String> values = new HashMap<>();
    for (int i = 0; i + 1 < arguments.length; i += 2) {
      values.put(arguments[i].substring("--".length()), arguments[i + 1]);
    }
    return new Options(values);
  }

  String get(String name) {
    String value = values.get(name);
    if (value == null) {
      throw new IllegalArgumentException("--" + name + " is missing");
    }
    return value;
  }

  boolean exactlyOnce() {
    return get("delivery").equals("exactly_once");
  }

  /** The path of the model, or null without one. */
  String model() {
    return get("model").isEmpty() ? null : get("model");
  }
}
