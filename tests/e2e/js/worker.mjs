// A worker: offers every function to its group until it is killed.
import { register } from "./functions.mjs";
import { connect } from "./support.mjs";

register(connect());
