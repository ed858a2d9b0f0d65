import { openNativeSnapshotter } from "./native.ts";
import { testSnapshotter } from "./snapshot.suite.ts";

testSnapshotter("native", openNativeSnapshotter);
