"""Words that fill the question patterns for `cascade.lab.training.outliers`, all written for this project.

No pattern may ask for anything that one of CLINC150's 150 intents covers.
"""

from __future__ import annotations

SLOTS: dict[str, str] = {
    "person": (
        "napoleon|cleopatra|marie curie|isaac newton|gandhi|nelson mandela|beethoven|mozart|frida kahlo|"
        "rembrandt|shakespeare|jane austen|mark twain|julius caesar|queen victoria|galileo|"
        "charles darwin|amelia earhart|neil armstrong|martin luther|joan of arc|genghis khan|"
        "alexander the great|leonardo da vinci|tesla|edison|freud|plato|aristotle|confucius|voltaire|"
        "hemingway|tolstoy|george washington|thomas jefferson|roosevelt|churchill"
    ),
    "star": (
        "tom hanks|meryl streep|denzel washington|beyonce|taylor swift|elvis|madonna|rihanna|brad pitt|"
        "adele|michael jackson|david bowie|freddie mercury|bob dylan|prince|eminem|lady gaga|"
        "keanu reeves|will smith|oprah|serena williams|michael jordan|messi|ronaldo|tom brady|usain bolt|"
        "muhammad ali|babe ruth|roger federer|pele"
    ),
    "country": (
        "france|brazil|egypt|norway|vietnam|kenya|peru|poland|iran|mongolia|portugal|morocco|cuba|"
        "iceland|nepal|thailand|greece|nigeria|chile|austria|ukraine|sweden|ireland|indonesia|argentina|"
        "turkey|belgium|ethiopia"
    ),
    "city": (
        "paris|boston|lagos|oslo|cairo|lima|seattle|detroit|rome|madrid|dublin|prague|vienna|sydney|"
        "toronto|houston|miami|denver|kyoto|mumbai|nairobi|havana|athens|lisbon|warsaw|moscow|baltimore|"
        "phoenix|cleveland|memphis"
    ),
    "state": (
        "ohio|texas|maine|utah|nevada|georgia|oregon|idaho|kansas|alaska|vermont|florida|montana|iowa|"
        "virginia"
    ),
    "animal": (
        "penguin|octopus|giraffe|hamster|falcon|shark|turtle|kangaroo|owl|dolphin|spider|rattlesnake|bee|"
        "wolf|elephant|hedgehog|jellyfish|crocodile|moose|parrot|goldfish|ferret|lizard|butterfly|"
        "gorilla|polar bear|bat|whale"
    ),
    "plant": (
        "tomato plant|rose bush|oak tree|cactus|orchid|fern|ivy|basil|lavender|maple tree|tulips|bamboo|"
        "succulent|sunflower|lawn|hydrangea|pine tree|moss|strawberry plant|willow"
    ),
    "team": (
        "lakers|yankees|cowboys|packers|celtics|red sox|patriots|steelers|arsenal|real madrid|bruins|"
        "cubs|dodgers|warriors|giants|eagles|manchester united|maple leafs|raiders|broncos|knicks|braves"
    ),
    "sport": (
        "soccer|tennis|golf|cricket|hockey|rugby|baseball|basketball|boxing|swimming|chess|volleyball|"
        "wrestling|badminton|gymnastics|surfing|skiing|archery|fencing|lacrosse|table tennis"
    ),
    "film": (
        "jaws|titanic|avatar|the matrix|casablanca|frozen|rocky|gladiator|inception|psycho|alien|"
        "the lion king|jurassic park|toy story|the godfather|harry potter|star wars|the hobbit|"
        "black panther|forrest gump|batman"
    ),
    "show": (
        "friends|the office|game of thrones|the simpsons|breaking bad|seinfeld|stranger things|survivor|"
        "jeopardy|doctor who|sesame street|the sopranos|south park|westworld|lost|cheers|the crown"
    ),
    "game": (
        "minecraft|tetris|pokemon|fortnite|zelda|monopoly|poker|scrabble|halo|chess|pac man|the sims|"
        "solitaire|call of duty|blackjack|dungeons and dragons|world of warcraft|sudoku|checkers|bridge"
    ),
    "company": (
        "google|tesla|amazon|disney|netflix|boeing|ikea|nike|sony|walmart|intel|microsoft|pfizer|ford|"
        "samsung|facebook|starbucks|general electric|costco|coca cola|twitter|honda|lego|adobe|oracle"
    ),
    "science": (
        "photosynthesis|gravity|evolution|magnetism|osmosis|nuclear fusion|plate tectonics|relativity|"
        "dna|radiation|electricity|the big bang|black holes|entropy|mitosis|dark matter|"
        "quantum mechanics|fermentation|global warming|static electricity|natural selection|sound waves|"
        "erosion|the water cycle|string theory"
    ),
    "space": (
        "mars|jupiter|the moon|saturn|venus|pluto|the sun|mercury|neptune|halley's comet|the milky way|"
        "andromeda|the asteroid belt|the north star|the international space station"
    ),
    "body": (
        "knee|back|shoulder|throat|stomach|ankle|neck|elbow|wrist|eye|ear|head|toe|hip|liver|kidney|"
        "lungs|skin"
    ),
    "illness": (
        "the flu|asthma|diabetes|malaria|migraines|anemia|measles|arthritis|eczema|insomnia|allergies|"
        "pneumonia|depression|a concussion|scurvy|food poisoning|high blood pressure|a cold|shingles|"
        "a hernia"
    ),
    "stain": (
        "red wine|grease|ink|grass|coffee|blood|rust|gum|candle wax|mud|lipstick|tomato sauce|"
        "nail polish|paint"
    ),
    "thing": (
        "carpet|sofa|leather jacket|silk shirt|white shoes|mattress|wooden table|curtains|backpack|"
        "dishwasher|oven|shower head|laptop screen|windows|tile floor|toaster|fish tank|gutters|grill|"
        "sneakers"
    ),
    "tool": (
        "hammer|ladder|chainsaw|drill|sewing machine|lawn mower|vacuum cleaner|microscope|telescope|"
        "blender|3d printer|microwave|wood stove|bicycle pump|camera|generator|air conditioner|"
        "pressure washer"
    ),
    "material": (
        "glass|plastic|steel|paper|rubber|cement|soap|ink|leather|cotton|silk|bronze|gasoline|ceramic|"
        "nylon|chalk|candles|gunpowder|concrete|aluminum|perfume|glue"
    ),
    "food": (
        "chocolate|cheese|coffee|wine|sushi|olive oil|honey|tofu|bread|vinegar|ketchup|ice cream|"
        "champagne|tea|beer|peanut butter|caviar|maple syrup|vanilla|saffron|mustard|popcorn"
    ),
    "instrument": (
        "piano|violin|guitar|trumpet|saxophone|drums|cello|flute|harp|banjo|accordion|clarinet|ukulele|organ"
    ),
    "genre": (
        "jazz|bluegrass|opera|hip hop|techno|reggae|country music|heavy metal|punk|disco|gospel|salsa|blues"
    ),
    "job": (
        "nurse|lawyer|pilot|plumber|teacher|astronaut|chef|firefighter|dentist|architect|journalist|"
        "electrician|veterinarian|actor|carpenter|detective|farmer|librarian|pharmacist|"
        "software engineer|accountant|judge|chemist"
    ),
    "subject": (
        "algebra|chemistry|history|biology|latin|calculus|economics|geometry|philosophy|physics|"
        "statistics|psychology|grammar|trigonometry|literature|geography|computer science|sociology|"
        "astronomy|anatomy"
    ),
    "school": (
        "harvard|stanford|yale|oxford|mit|ucla|duke|princeton|notre dame|community college|law school|"
        "medical school"
    ),
    "event": (
        "world war two|the french revolution|the civil war|the cold war|the moon landing|"
        "the great depression|the black plague|the renaissance|the roman empire|the vietnam war|"
        "the gold rush|the industrial revolution|the fall of the berlin wall|the boston tea party|"
        "prohibition|the crusades|the titanic sinking|the ice age"
    ),
    "landmark": (
        "eiffel tower|statue of liberty|great wall|taj mahal|colosseum|golden gate bridge|big ben|"
        "stonehenge|mount rushmore|pyramids|sistine chapel|empire state building|louvre|hoover dam|"
        "white house|grand canyon"
    ),
    "work": (
        "the mona lisa|starry night|hamlet|moby dick|the odyssey|the great gatsby|don quixote|dracula|"
        "the bible|the iliad|pride and prejudice|war and peace|1984|romeo and juliet|the scream|"
        "frankenstein|the raven"
    ),
    "religion": (
        "buddhism|islam|judaism|christianity|hinduism|taoism|atheism|greek mythology|norse mythology|paganism"
    ),
    "idea": (
        "democracy|capitalism|socialism|feminism|free will|karma|stoicism|nihilism|utilitarianism|"
        "communism|anarchy|altruism|consciousness|the american dream|existentialism|monarchy|federalism|"
        "copyright|free trade"
    ),
    "law": (
        "jaywalking|trespassing|speeding|copyright infringement|a divorce|a patent|bankruptcy|"
        "child custody|self defense|jury duty|a will|probate|small claims court|eviction|immigration|"
        "a restraining order|a trademark"
    ),
    "invest": (
        "bitcoin|gold|index funds|real estate|apple stock|government bonds|ethereum|mutual funds|"
        "oil futures|penny stocks|silver|startups|tesla shares|a hedge fund|foreign currency|farmland"
    ),
    "code": (
        "python|javascript|html|linux|sql|java|excel|photoshop|wordpress|git|docker|bash|css|windows ten|"
        "powerpoint"
    ),
    "device": (
        "laptop|printer|router|tablet|smartwatch|webcam|keyboard|hard drive|headphones|monitor|usb stick|"
        "game console|projector|e reader|graphics card|modem|drone|television|mouse"
    ),
    "app": (
        "instagram|facebook|twitter|snapchat|tiktok|whatsapp|youtube|netflix|linkedin|reddit|pinterest|"
        "zoom|discord|twitch"
    ),
    "carpart": (
        "spark plugs|wipers|radiator|alternator|brake pads|transmission|headlight|muffler|clutch|"
        "fuse box|dipstick|cruise control|seat belt|horn|timing belt|catalytic converter|"
        "rear view mirror|sunroof|trunk"
    ),
    "vehicle": (
        "honda civic|ford mustang|toyota prius|jeep wrangler|harley davidson|pickup truck|school bus|"
        "sailboat|bicycle|submarine|boeing 747|helicopter|motorcycle|electric car|hot air balloon|"
        "freight train|tractor|canoe"
    ),
    "cloth": (
        "wedding dress|tuxedo|scarf|high heels|bow tie|winter coat|jeans|kimono|swimsuit|wool sweater|"
        "kilt|hat"
    ),
    "beauty": (
        "oily hair|dry skin|acne|split ends|chapped lips|wrinkles|dandruff|dark circles|razor burn|"
        "gray hair|a beard"
    ),
    "hobby": (
        "knitting|painting|fishing|gardening|photography|yoga|camping|pottery|juggling|bird watching|"
        "origami|meditation|hiking|woodworking|ballet|magic tricks|calligraphy|rock climbing|"
        "scuba diving|stamp collecting"
    ),
    "child": "toddler|newborn|teenager|baby|six year old|kid|twins|daughter|nephew|son",
    "house": (
        "attic|basement|roof|kitchen sink|garage|bathroom|deck|fence|chimney|driveway|closet|patio|"
        "bedroom wall"
    ),
    "pest": (
        "ants|mice|roaches|bed bugs|fleas|termites|moths|wasps|fruit flies|squirrels|raccoons|snails|"
        "weeds|mosquitoes"
    ),
    "policy": (
        "health care|gun control|taxation of churches|immigration reform|climate change|the minimum wage|"
        "abortion|the death penalty|free college|net neutrality|foreign aid|the electoral college|"
        "school vouchers|term limits"
    ),
    "office": (
        "president|mayor|prime minister|governor|senator|pope|king|secretary of state|"
        "supreme court justice|chancellor"
    ),
    "number": "two|three|five|seven|ten|twelve|fifty|a hundred|a thousand|a million",
    "year": "1812|1945|1969|1776|1984|1999|2001|1066|1492|1929|2012|1850|1917",
    "language": (
        "latin|esperanto|sanskrit|gaelic|old english|swahili|sign language|hebrew|morse code|braille"
    ),
    "document": (
        "resume|essay|poem|cover letter|thesis|short story|screenplay|speech|business plan|obituary|"
        "eulogy|blog post"
    ),
    "file": (
        "photo|document|email|folder|pdf|spreadsheet|video|presentation|contract|screenshot|backup|attachment"
    ),
    "trait": (
        "introvert|alpha male|narcissist|perfectionist|leader|genius|optimist|morning person|extrovert|"
        "good listener"
    ),
    "sign": "leo|virgo|scorpio|gemini|aries|capricorn|aquarius|pisces|libra|taurus",
    "biz": (
        "marketing|advertising|saas|public relations|franchising|supply chain|logistics|e commerce|"
        "retail|consulting|human resources|outsourcing|venture capital|branding|cloud computing|"
        "wholesale|real estate|manufacturing"
    ),
    "adj": (
        "oldest|tallest|biggest|fastest|rarest|most famous|most expensive|smallest|strongest|deadliest|"
        "most popular|longest|most dangerous|youngest|richest|smartest|heaviest|loudest|best|worst"
    ),
    "relation": (
        "boss|roommate|neighbor|boyfriend|wife|mother in law|coworker|best friend|sister|ex|landlord|"
        "teacher|husband"
    ),
}
