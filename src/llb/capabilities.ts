export interface CapabilitySet {
	has(id: string): boolean;
}
