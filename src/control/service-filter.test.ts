import assert from "node:assert/strict";
import { test } from "node:test";
import { parseFilters } from "./service-filter.ts";

const fields: Readonly<Record<string, string>> = { id: "abc", "labels.a.b": "x,y", description: "[1/2] RUN" };
const matches = (...filters: string[]): boolean => parseFilters(filters)((path) => fields[path.join(".")]);

test("parseFilters: one of several filters, all selectors of one", () => {
	assert.equal(matches(), true);
	assert.equal(matches(""), true);
	assert.equal(matches("id"), true);
	assert.equal(matches("other"), false);
	assert.equal(matches("id==abc"), true);
	assert.equal(matches("id==abc,other"), false);
	assert.equal(matches("other", "id!=abd"), true);
	assert.equal(matches("other!=x"), true);
	assert.equal(matches("id~=^a.c$"), true);
	assert.equal(matches("id~=/^A/"), false);
	assert.equal(matches("id~=(?i)^A"), true);
	assert.equal(matches("id~=["), false);
	assert.equal(matches('labels.a.b=="x,y"'), true);
	assert.equal(matches('labels."a".b=="x\\x2cy"'), true);
	assert.equal(matches("description~=|RUN$|"), true);
});

test("parseFilters: what is no filter", () => {
	const error = (text: string): string => {
		try {
			parseFilters([text]);
		} catch (thrown) {
			return String((thrown as Error).message);
		}
		return "";
	};
	assert.equal(error("a=b"), 'filters: parse error: [a >|=|< b]: unsupported operator "=": invalid argument');
	assert.equal(error("a=="), "filters: parse error: [a==]: expected value or quoted: invalid argument");
	assert.equal(error("==a"), "filters: parse error: [ >|=|< =a]: expected field or quoted: invalid argument");
	assert.equal(
		error('a=="b'),
		'filters: parse error: [a== >|"|< b]: quoted literal not terminated: invalid argument',
	);
});
