// Follows a real gateway: node live.mjs URL TOKEN COUNT [LAST_ID]; prints the ids of COUNT alerts as JSON.
import { WebSocket } from "ws";
import { Follower } from "../dist/index.js";

const [url, token, count, lastId] = process.argv.slice(2);
const got = [];
const follower = new Follower({
  url, token, WebSocket, lastId, firstWaitMs: 50,
  onState: state => console.error(state),
  onAlert: alert => {
    got.push(alert.alert_id);
    if (got.length === Number(count)) {
      console.log(JSON.stringify(got));
      follower.stop();
      process.exit(0);
    }
  } });
follower.start();
