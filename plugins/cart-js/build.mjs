// Makes cart.wasm of cart.js. Without these features of the engine the component imports nothing: a plugin has no
// clock, no random numbers and no network.
import { writeFile } from "node:fs/promises";

import { componentize } from "@bytecodealliance/componentize-js";

const { component, imports } = await componentize({
  sourcePath: "cart.js",
  witPath: "wit",
  worldName: "cart",
  disableFeatures: ["random", "stdio", "clocks", "http", "fetch-event"],
});
if (imports.length > 0) throw new Error(`a plugin imports nothing, and this one ${JSON.stringify(imports)}`);
await writeFile("cart.wasm", component);
