// What every page does: times in the viewer's zone, the switch of colours, the
// keyboard, questions before something is done; and what only some do.
import { tellTimes } from "./times.js";
import { follow } from "./live.js";
import { listen } from "./keys.js";
import { themes } from "./theme.js";
import { asks } from "./ask.js";

tellTimes(document);
setInterval(() => tellTimes(document), 1000);
themes(document.getElementById("theme"));
listen();
asks();

const stream = document.body.dataset.live;
if (document.getElementById("slots")) {
  const { lanes } = await import("./lanes.js");
  lanes(stream);
} else if (stream) {
  follow(stream, {});
}
const box = document.getElementById("plots");
if (box) {
  const { plots } = await import("./plots.js");
  plots(box);
}
const log = document.getElementById("log");
if (log) {
  const { showLog } = await import("./log.js");
  showLog(log);
}
