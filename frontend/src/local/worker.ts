/** The thread that searches, so that the page stays smooth. */
import { ChunkTrouble } from "../bytes/trouble";
import { Keeper } from "./format/keeper";
import type { Asked, Told, Trouble } from "./messages";
import { Refusal } from "./refusal";

const tell = (told: Told): void => postMessage(told);
// A worker's name is where its export is.
const keeper: Keeper = new Keeper(self.name, {
  progress: (received, total) => tell({ progress: [received, total] }),
  changed: () => tell({ changed: true, isKept: keeper.isKept }),
});

addEventListener("message", ({ data }: MessageEvent<Asked>) => {
  answer(data).then(
    (found) => tell({ id: data.id, answer: found }),
    (error: unknown) => tell({ id: data.id, trouble: troubleOf(error) }),
  );
});

async function answer(question: Asked): Promise<unknown> {
  switch (question.name) {
    case "search":
      return keeper.ask((local) => local.search(question.asked));
    case "facets":
      return keeper.ask((local) => local.facets(question.asked));
    case "item":
      return keeper.ask((local) => local.item(question.asked));
    case "examples":
      return keeper.ask((local) => local.sample(question.asked));
    case "model":
      return keeper.model();
    case "hold":
      keeper.hold(question.asked);
      return null;
    case "stats":
      return keeper.stats();
  }
}

function troubleOf(error: unknown): Trouble {
  if (error instanceof Refusal) {
    const { kind: type, found, valid, remedy } = error;
    return { kind: "refusal", type, found, valid, remedy };
  }
  if (error instanceof ChunkTrouble) return { kind: error.kind, file: error.file, status: error.status };
  return { kind: "bug", found: String(error) };
}
