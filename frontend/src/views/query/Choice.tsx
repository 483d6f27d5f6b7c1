import type { Known } from "../../endpoint/facets";
import { missingOf } from "../../endpoint/facets";
import { conditionOf, withMissing } from "../../filters";
import { changeOptions } from "../../search/search";
import { options } from "../../state";
import { formatCount } from "../../words/format";
import { t } from "../../words/messages";
import { Icon } from "../elements/icons";

/** A value to tick, or to exclude. */
export function Choice(props: {
  name: string;
  count: number;
  /** The label for excluding it. */
  not: string;
  isChosen: boolean;
  isRefused: boolean;
  onChoose: () => void;
  onRefuse: () => void;
}) {
  const { name, count, not, isChosen, isRefused, onChoose, onRefuse } = props;
  return (
    <div class={isRefused ? "choice choice-refused" : "choice"}>
      <label class={count === 0 ? "check check-empty" : "check"}>
        <input type="checkbox" checked={isChosen} onChange={onChoose} />
        <span class="check-name" dir="auto">
          {name}
        </span>
        <span class="check-count">{formatCount(count)}</span>
      </label>
      <button type="button" class="icon-button" aria-pressed={isRefused} title={not} onClick={onRefuse}>
        <Icon name="minus" size={16} />
        <span class="visually-hidden">{not}</span>
      </button>
    </div>
  );
}

/** Items without a value: only these, or none of these. */
export function Unknown({ field }: { field: Known }) {
  const { filters } = options.value;
  const count = missingOf(field);
  if (count === null) return null;
  const { missing = null } = conditionOf(filters, field);
  const ask = (wanted: boolean) =>
    void changeOptions({ filters: withMissing(filters, field, missing === wanted ? null : wanted) });
  return (
    <Choice
      name={t("filters.unknown")}
      count={count}
      not={t("filters.known")}
      isChosen={missing === true}
      isRefused={missing === false}
      onChoose={() => ask(true)}
      onRefuse={() => ask(false)}
    />
  );
}
