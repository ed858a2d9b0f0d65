import { keyStoreSuite } from "./key-store.suite.ts";
import { createMemoryKeyStore } from "./memory-key-store.ts";

keyStoreSuite("memory", createMemoryKeyStore);
