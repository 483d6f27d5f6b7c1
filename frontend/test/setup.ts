import { speakWith } from "../src/words/messages";
import english from "../src/words/messages/en.json";

speakWith("en", english);
