import { SORTS } from "../../address/link";
import type { Sort } from "../../endpoint/contract";
import { changeOptions } from "../../search/search";
import { facets, options, query } from "../../state";
import { t } from "../../words/messages";

/** Whether the catalogue and the question have what an order needs. */
function isOffered(sort: Sort): boolean {
  if (sort.startsWith("price")) return typeof facets.value?.price_max === "number";
  return sort !== "most_changed" || query.value?.kind !== "words";
}

/** The order of the results: above them, and on a phone among the filters. */
export function Order() {
  const { sort } = options.value;
  return (
    <label class="order">
      <span>{t("order.label")}</span>
      <select value={sort} onChange={(event) => void changeOptions({ sort: event.currentTarget.value as Sort })}>
        {SORTS.filter((one) => one === sort || isOffered(one)).map((one) => (
          <option key={one} value={one}>
            {t(`order.${one}`)}
          </option>
        ))}
      </select>
    </label>
  );
}
